/** The list of appeals while it is looked at: nothing moves under a hand, and what is being written stays. */

import type { FloorAlert, Published } from '@/api/types'

type Rows = readonly FloorAlert[]

/** What is answered stays where it stands, with its answer; what goes out of sight goes. */
export function afterEvent(rows: Rows, { type, call_id, alert }: Published): FloorAlert[] {
  if (type === 'call.left') return rows.filter((row) => row.call_id !== call_id)
  return rows.map((row) => (row.id === alert?.id ? { ...row, ...alert } : row))
}

/** Those of the newest that are not shown yet, in front of what is. */
export function withNew(rows: Rows, newest: Rows): FloorAlert[] {
  const known = new Set(rows.map((row) => row.id))
  return [...newest.filter((row) => !known.has(row.id)), ...rows]
}
