/** Small questions about a call. */

import type { CallView } from '@/api/types'

/** How long the call lasts so far: what was heard of it, or what the clock says if that is more. */
export function lengthOf(call: CallView, now: number): number {
  const heard = call.duration_ms ?? 0
  if (call.state === 'ended') return heard
  const since = now - Date.parse(call.started_at)
  return Math.max(heard, Number.isNaN(since) ? 0 : since)
}
