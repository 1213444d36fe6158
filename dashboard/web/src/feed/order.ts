/** In which order calls stand; alerts: see `cards`. Pure; when to re-order is the view's business. */

import type { CallView, Severity } from '../api/types'

export const SEVERITIES: readonly Severity[] = ['critical', 'warning', 'info']

/** Risk first, then the call that runs longest: start times do not change, so equals never swap. */
export function byRisk(a: CallView, b: CallView): number {
  return (
    b.alerts.critical - a.alerts.critical ||
    b.alerts.warning - a.alerts.warning ||
    a.started_at.localeCompare(b.started_at) ||
    a.call_id.localeCompare(b.call_id)
  )
}

/**
 * The order to show, given the one shown before: ids that are still there keep their places,
 * new ones go to the end. Used while the pointer is over the wall.
 */
export function keepPlaces(shown: readonly string[], wanted: readonly string[]): string[] {
  const want = new Set(wanted)
  const have = new Set(shown)
  return [...shown.filter((id) => want.has(id)), ...wanted.filter((id) => !have.has(id))]
}

export function worst(counts: Record<Severity, number>): Severity | null {
  return SEVERITIES.find((severity) => counts[severity] > 0) ?? null
}
