import { expect, test } from 'vitest'

import type { FloorAlert, Published } from '@/api/types'
import { afterEvent, withNew } from '@/lib/appeals'

const row = (id: string, call_id = 'c', appeal: FloorAlert['appeal'] = 'open'): FloorAlert =>
  ({ id, call_id, appeal, agent: '8001' }) as unknown as FloorAlert
const ids = (rows: readonly FloorAlert[]): string[] => rows.map((each) => each.id)

test('what is answered stays where it stands, with its answer', () => {
  const event = { type: 'alert.updated', call_id: 'c', alert: { id: 'a2', appeal: 'accepted' } } as unknown as Published
  const rows = afterEvent([row('a1'), row('a2'), row('a3')], event)
  expect(ids(rows)).toEqual(['a1', 'a2', 'a3'])
  expect(rows[1]).toMatchObject({ appeal: 'accepted', agent: '8001' })
})

test('a call that goes out of sight takes its appeals along', () => {
  const event = { type: 'call.left', call_id: 'c' } as unknown as Published
  expect(ids(afterEvent([row('a1'), row('a2', 'other')], event))).toEqual(['a2'])
})

test('a new appeal comes to the top, and neither an answered one nor one of a later page goes', () => {
  const shown = [row('a3'), row('a2', 'c', 'rejected'), row('a1')]
  const rows = withNew(shown, [row('a4'), row('a3')])
  expect(ids(rows)).toEqual(['a4', 'a3', 'a2', 'a1'])
  expect(rows.slice(1)).toEqual(shown)
})
