/**
 * The life of an alert as the page foresees it, so that a key answers at once. The server decides (see
 * `streams/alert_life.py` and `app/api/alert_rights.py`); what it decides otherwise is rolled back. Pure.
 */

import type { AlertStep } from '../api/http'
import type { Alert, AlertState, User } from '../api/types'

const WAITING: readonly AlertState[] = ['open', 'escalated']
const UNJUDGED: readonly AlertState[] = ['open', 'escalated', 'acknowledged']
const JUDGED: readonly AlertState[] = ['resolved', 'false_alarm']

/** Characters at most, of a comment and of a reason; counted as the server does, by code points. */
export const COMMENT_LENGTH = 2000

/** States from which a step leads on. */
const FROM: Record<AlertStep, readonly AlertState[]> = {
  acknowledge: WAITING,
  resolve: UNJUDGED,
  'false-alarm': UNJUDGED,
  reopen: JUDGED,
  assign: UNJUDGED,
  comment: [...UNJUDGED, ...JUDGED, 'withdrawn'],
  'accept-appeal': [...UNJUDGED, 'resolved'],
  'reject-appeal': [...UNJUDGED, 'resolved'],
}

/** What inspectors do too, once the call has ended. */
const AFTER_THE_CALL: readonly AlertStep[] = ['comment', 'resolve', 'false-alarm', 'accept-appeal', 'reject-appeal']

export function stateOf(alert: Alert): AlertState {
  return alert.state ?? 'open'
}

/** Nobody has answered yet. */
export function isWaiting(alert: Alert): boolean {
  return WAITING.includes(stateOf(alert))
}

export function isJudged(alert: Alert): boolean {
  return JUDGED.includes(stateOf(alert))
}

export function isPossible(alert: Alert, step: AlertStep): boolean {
  if ((step === 'accept-appeal' || step === 'reject-appeal') && alert.appeal !== 'open') return false
  return FROM[step].includes(stateOf(alert))
}

/** Whether a person's role may do it: an inspector judges and comments, once the call has ended. */
export function may(role: User['role'] | undefined, step: AlertStep, live: boolean): boolean {
  if (role === 'supervisor' || role === 'administrator') return true
  return role === 'inspector' && !live && AFTER_THE_CALL.includes(step)
}

/** What a person asked for and the server has not confirmed yet. */
export interface Wish {
  step: AlertStep
  by: string
  /** Of `assign`. */
  to?: string
}

/** The alert as it will be if the server agrees; the same object where the step changes nothing to see. */
export function foreseen<T extends Alert>(alert: T, wish: Wish | undefined): T {
  if (!wish || !isPossible(alert, wish.step)) return alert
  const owner = alert.owner ?? null
  switch (wish.step) {
    case 'acknowledge':
      return { ...alert, state: 'acknowledged', owner: wish.by, escalates_at: null }
    case 'resolve':
      return { ...alert, state: 'resolved', owner: owner ?? wish.by, escalates_at: null }
    case 'false-alarm':
      return { ...alert, state: 'false_alarm', owner: owner ?? wish.by, escalates_at: null }
    case 'accept-appeal':
      return { ...alert, state: 'false_alarm', owner: owner ?? wish.by, escalates_at: null, appeal: 'accepted' }
    case 'reject-appeal':
      return { ...alert, appeal: 'rejected' }
    case 'reopen':
      return { ...alert, state: 'open', owner: null, escalates_at: null }
    case 'assign':
      return { ...alert, state: wish.to === wish.by ? 'acknowledged' : 'open', owner: wish.to ?? null, escalates_at: null }
    case 'comment':
      return { ...alert, comments: (alert.comments ?? 0) + 1 }
  }
}

/** How long an alert waits, and how much of its time is gone (0 to 1; `null`: no clock runs). */
export function waited(alert: { at?: string | null; escalates_at?: string | null }, now: number): {
  ms: number
  share: number | null
  left: number | null
} {
  const since = alert.at ? Date.parse(alert.at) : NaN
  const ms = Number.isNaN(since) ? 0 : Math.max(0, now - since)
  const until = alert.escalates_at ? Date.parse(alert.escalates_at) : NaN
  if (Number.isNaN(until)) return { ms, share: null, left: null }
  const left = Math.max(0, until - now)
  const whole = until - (Number.isNaN(since) ? now : since)
  return { ms, share: whole <= 0 ? 1 : Math.min(1, Math.max(0, 1 - left / whole)), left }
}
