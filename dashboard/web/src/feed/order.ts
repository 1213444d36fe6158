/** In which order calls and alerts stand. Pure; when to re-order is the view's business. */

import type { FloorAlert, FloorCall, Severity } from '../api/types'
import { isOpen, stands } from './reducer'

export const SEVERITIES: readonly Severity[] = ['critical', 'warning', 'info']
const RANK: Record<Severity, number> = { critical: 0, warning: 1, info: 2 }

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

export interface AlertGroups {
  /** In calls that still run: somebody can act now. */
  now: FloorAlert[]
  /** In calls that have ended. */
  earlier: FloorAlert[]
}

/**
 * Alerts of running calls: a severity band first, inside a band the newest first, so that a fresh
 * critical alert always stands on top and no stream of notices pushes it away. Alerts of ended
 * calls cannot be acted upon within the call, so they stand below, and there plain time rules:
 * a critical alert of this morning does not outrank what has just ended.
 */
export function groupAlerts(alerts: Iterable<FloorAlert>, isLive: (callId: string) => boolean): AlertGroups {
  const groups: AlertGroups = { now: [], earlier: [] }
  for (const alert of alerts) {
    if (!stands(alert)) continue
    groups[isLive(alert.call_id) && isOpen(alert) ? 'now' : 'earlier'].push(alert)
  }
  groups.now.sort((a, b) => RANK[a.severity] - RANK[b.severity] || newestFirst(a, b))
  groups.earlier.sort(newestFirst)
  return groups
}

function newestFirst(a: FloorAlert, b: FloorAlert): number {
  return (
    (b.at ?? '').localeCompare(a.at ?? '') ||
    b.media_end_ms - a.media_end_ms ||
    a.id.localeCompare(b.id)
  )
}

export function worst(counts: Record<Severity, number>): Severity | null {
  return SEVERITIES.find((severity) => counts[severity] > 0) ?? null
}
