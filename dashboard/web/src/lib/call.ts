/** Small questions about a call and its alerts. */

import type { Alert, CallView } from '@/api/types'

/** How long the call lasts so far: what was heard of it, or what the clock says if that is more. */
export function lengthOf(call: CallView, now: number): number {
  const heard = call.duration_ms ?? 0
  if (call.state === 'ended') return heard
  const since = now - Date.parse(call.started_at)
  return Math.max(heard, Number.isNaN(since) ? 0 : since)
}

/**
 * How long an alert took from the end of the phrase, in milliseconds. `delivered`: to this browser;
 * otherwise until it was raised, for alerts that were read back later. `null`: not known.
 */
export function latencyOf(alert: Alert): { ms: number; delivered: boolean } | null {
  const { vad, queue, asr, rules, total } = alert.latency_ms ?? {}
  if (typeof total === 'number') return { ms: total, delivered: true }
  const steps = [vad, queue, asr, rules]
  if (steps.some((step) => typeof step !== 'number')) return null
  return { ms: steps.reduce<number>((sum, step) => sum + (step ?? 0), 0), delivered: false }
}

/** The address of a call's page. */
export function hrefOf(id: string): string {
  return `/calls/${encodeURIComponent(id)}`
}
