/** In which order calls stand; alerts: see `cards`. Pure; when to re-order is the view's business. */

import type { FloorCall, Severity } from '../api/types'

export const SEVERITIES: readonly Severity[] = ['critical', 'warning', 'info']

/**
 * What nobody has taken in hand first, then what somebody has; among equals the call that runs longest: start times
 * do not change, so equals never swap. How the customer feels is shown, but changes too often to order by.
 */
export function byRisk(a: FloorCall, b: FloorCall): number {
  return (
    b.open.critical - a.open.critical ||
    b.open.warning - a.open.warning ||
    b.alerts.critical - a.alerts.critical ||
    b.alerts.warning - a.alerts.warning ||
    byStart(a, b)
  )
}

/** Longest first. Times and ids are plain ASCII: no language orders them. */
export function byStart(a: FloorCall, b: FloorCall): number {
  return compare(a.started_at, b.started_at) || compare(a.call_id, b.call_id)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

export function worst(counts: Record<Severity, number>): Severity | null {
  return SEVERITIES.find((severity) => counts[severity] > 0) ?? null
}
