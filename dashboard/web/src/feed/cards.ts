/**
 * One angry call is one card. Alerts of a call that lie close together, and those of the same rule, are shown
 * as one, the newest in front; so however many alerts a call raises, the stream grows by one. Pure.
 */

import type { FloorAlert, Severity } from '../api/types'
import { isJudged, isWaiting, stateOf } from './life'
import { stands } from './reducer'

/** Media time between two alerts of a call that are still one card. */
export const TOGETHER_MS = 180_000
/** After an alert has rung, further ones of the same call that are no worse are silent for so long. */
export const QUIET_MS = 20_000

export const RANK: Record<Severity, number> = { critical: 0, warning: 1, info: 2 }

export interface AlertCard {
  /** Of its oldest alert: it stays while newer ones join. */
  id: string
  call_id: string
  /** The newest one, in front: of those that wait, if any does. */
  front: FloorAlert
  /** All of them, newest first. */
  alerts: FloorAlert[]
  /** All but the one in front. */
  others: FloorAlert[]
  /** How many wait for somebody. */
  waiting: number
  /** The worst of those that wait; else of those in work, else of all. */
  severity: Severity
  escalated: boolean
}

export interface AlertCards {
  /** In calls that still run, and not judged yet: somebody can act now. */
  now: AlertCard[]
  earlier: AlertCard[]
}

export type StateFilter = 'all' | 'waiting' | 'mine' | 'judged'

export interface AlertFilter {
  state: StateFilter
  /** Severities that are shown. */
  severities: ReadonlySet<Severity>
  me: string | null
}

export function passes(alert: FloorAlert, filter: AlertFilter): boolean {
  if (!filter.severities.has(alert.severity)) return false
  switch (filter.state) {
    case 'all':
      return true
    case 'waiting':
      return isWaiting(alert)
    case 'mine':
      return filter.me !== null && alert.owner === filter.me && !isJudged(alert)
    case 'judged':
      return isJudged(alert)
  }
}

/**
 * Cards of running calls that have something to do: severity bands, what has escalated first, inside a band
 * the newest first, so that a fresh critical alert always stands on top and no stream of notices pushes it
 * away. A card that somebody acknowledges keeps its place: it must not run away from under the hand. Below,
 * plain time rules: a critical alert of this morning does not outrank what has just ended.
 */
export function cardsOf(alerts: Iterable<FloorAlert>, isLive: (callId: string) => boolean): AlertCards {
  const ofCall = new Map<string, FloorAlert[]>()
  for (const alert of alerts) {
    if (!stands(alert)) continue
    const of = ofCall.get(alert.call_id)
    if (of) of.push(alert)
    else ofCall.set(alert.call_id, [alert])
  }
  const cards: AlertCards = { now: [], earlier: [] }
  for (const [callId, of] of ofCall) {
    for (const group of grouped(of)) {
      const card = cardOf(callId, group)
      cards[isLive(callId) && card.alerts.some((alert) => !isJudged(alert)) ? 'now' : 'earlier'].push(card)
    }
  }
  cards.now.sort(
    (a, b) =>
      RANK[a.severity] - RANK[b.severity] ||
      Number(b.escalated) - Number(a.escalated) ||
      newestFirst(a.front, b.front),
  )
  cards.earlier.sort((a, b) => newestFirst(a.front, b.front))
  return cards
}

/** The same cards, where they are the same as before the very ones from before: their views need no look at them. */
export function kept(before: AlertCards, after: AlertCards): AlertCards {
  const known = new Map([...before.now, ...before.earlier].map((card) => [card.id, card]))
  const keep = (card: AlertCard): AlertCard => {
    const old = known.get(card.id)
    const same =
      old !== undefined &&
      old.call_id === card.call_id &&
      old.alerts.length === card.alerts.length &&
      old.alerts.every((alert, at) => alert === card.alerts[at])
    return same ? old : card
  }
  return { now: after.now.map(keep), earlier: after.earlier.map(keep) }
}

/** The alerts of one call, in groups; each oldest first. */
function grouped(alerts: FloorAlert[]): FloorAlert[][] {
  const sorted = alerts.toSorted((a, b) => a.media_end_ms - b.media_end_ms || descending(b.id, a.id))
  const groups: FloorAlert[][] = []
  const ofRule = new Map<string, number>()
  for (const alert of sorted) {
    const last = groups.at(-1)?.at(-1)
    const near = last !== undefined && alert.media_end_ms - last.media_end_ms <= TOGETHER_MS
    // The groups lie one after another: what joins an earlier one joins all between them, too.
    const at = Math.min(ofRule.get(alert.rule_id) ?? groups.length, near ? groups.length - 1 : groups.length)
    if (at === groups.length - 1) groups[at]?.push(alert)
    else groups.splice(at, groups.length - at, [...groups.slice(at).flat(), alert])
    for (const [rule, group] of ofRule) if (group > at) ofRule.set(rule, at)
    ofRule.set(alert.rule_id, at)
  }
  return groups
}

function cardOf(callId: string, group: FloorAlert[]): AlertCard {
  const alerts = group.toReversed()
  const waiting = alerts.filter(isWaiting)
  const inWork = waiting.length > 0 ? waiting : alerts.filter((alert) => !isJudged(alert))
  const relevant = inWork.length > 0 ? inWork : alerts
  const front = relevant[0] ?? alerts[0]
  const oldest = group[0]
  if (!front || !oldest) throw new Error('a card has at least one alert')
  return {
    id: oldest.id,
    call_id: callId,
    front,
    alerts,
    others: alerts.filter((alert) => alert !== front),
    waiting: waiting.length,
    severity: relevant.reduce<Severity>(
      (worst, alert) => (RANK[alert.severity] < RANK[worst] ? alert.severity : worst),
      front.severity,
    ),
    escalated: alerts.some((alert) => stateOf(alert) === 'escalated'),
  }
}

/** Whether a new alert is worth a sound: a call that rang a moment ago rings again only for something worse. */
export function rings(alert: FloorAlert, others: Iterable<FloorAlert>): boolean {
  const at = Date.parse(alert.at ?? '')
  for (const other of others) {
    if (other.id === alert.id || other.call_id !== alert.call_id || !stands(other)) continue
    const apart = at - Date.parse(other.at ?? '')
    if (apart >= 0 && apart < QUIET_MS && RANK[other.severity] <= RANK[alert.severity]) return false
  }
  return true
}

function newestFirst(a: FloorAlert, b: FloorAlert): number {
  return descending(a.at ?? '', b.at ?? '') || b.media_end_ms - a.media_end_ms || descending(b.id, a.id)
}

/** Times and ids are plain ASCII: no language orders them. */
function descending(a: string, b: string): number {
  return a > b ? -1 : a < b ? 1 : 0
}
