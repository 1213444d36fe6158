/**
 * What the floor knows, and how one event changes it. No clock, no network, no Vue.
 *
 * Events arrive in the order of their cursor. A stored event whose cursor is not beyond the state's
 * is one that the state has already seen (or that the loaded rows already contain), so applying
 * it again changes nothing. Events that are not stored (partials, who is speaking, health) carry the cursor of
 * the stored event before them, and are only good as long as no later stored event was seen.
 * Values in the maps are replaced, never changed in place, so that a view can compare them by identity.
 */

import type {
  Alert,
  AlertCounts,
  CallInfo,
  Channel,
  Emotion,
  Floor,
  FloorAlert,
  FloorCall,
  Health,
  Mood,
  Progress,
  Published,
  ScriptState,
  Text,
} from '../api/types'

export interface FloorState {
  cursor: number
  /** Live ones, and those that ended while this page was open. */
  calls: Map<string, FloorCall>
  /** The last ones, in the order in which they were raised. */
  alerts: Map<string, FloorAlert>
  /** Alerts that nobody has taken in hand, of all calls; also of those that `alerts` has let go. */
  open: AlertCounts
  /** By call and role: what is being said right now, not final yet. */
  partials: Map<string, Text>
  /** By call: the last few final utterances, oldest first; for those with room to show them. */
  recent: Map<string, Text[]>
  /** By call and role: where the last final utterance started; partials up to there are stale. */
  finals: Map<string, number>
  health: Health | null
}

/** What an event changed that somebody may want to react to. */
export interface Change {
  applied: boolean
  raised?: FloorAlert
}

const NOTHING: Change = { applied: false }
const DONE: Change = { applied: true }
const MOST_ENDED = 60
const MOST_RECENT = 4
export const MOST_ALERTS = 500
/** Of one call, once there are too many: a call that raises a thousand must not push the others away. */
export const MOST_OF_CALL = 60
export const MOST_MOODS = 24
/** The rules' own list of what is still to be said; all others are scripts. */
const RULES = 'rules'
const NONE: Readonly<AlertCounts> = { critical: 0, warning: 0, info: 0 }

export function emptyFloor(): FloorState {
  return {
    cursor: 0,
    calls: new Map(),
    alerts: new Map(),
    open: { ...NONE },
    partials: new Map(),
    recent: new Map(),
    finals: new Map(),
    health: null,
  }
}

export function loadFloor(state: FloorState, floor: Floor): void {
  const live = new Set(floor.calls.map((call) => call.call_id))
  // Calls seen here that the server no longer counts as live have ended while this page was cut off.
  const lost: FloorCall[] = []
  for (const [id, call] of state.calls) {
    if (live.has(id)) continue
    lost.push(call.state === 'ended' ? call : ended(call, null, null, call.duration_ms))
  }
  state.calls.clear()
  for (const call of lost) state.calls.set(call.call_id, call)
  for (const call of floor.calls) state.calls.set(call.call_id, call)
  state.alerts.clear()
  for (const alert of floor.alerts.toReversed()) state.alerts.set(alert.id, alert)
  state.open = floor.open
  state.partials.clear()
  state.finals.clear()
  for (const id of state.recent.keys()) if (!live.has(id)) state.recent.delete(id)
  for (const call of floor.calls) {
    const text = call.last_text
    if (!text) continue
    state.finals.set(channelKey(call.call_id, text.role), text.start_ms)
    addRecent(state, call.call_id, text)
  }
  state.health = floor.health
  state.cursor = floor.cursor
}

export function channelKey(callId: string, role: Channel): string {
  return `${callId} ${role}`
}

/** Events that a later one of their kind replaces; the server does not keep them. */
export function isPassing(event: Published): boolean {
  return (
    event.type === 'utterance.partial' ||
    event.type === 'health' ||
    (event.type === 'call.updated' && event.call === undefined)
  )
}

export function apply(state: FloorState, event: Published): Change {
  if (isPassing(event)) return event.cursor < state.cursor ? NOTHING : applyPassing(state, event)
  if (event.cursor <= state.cursor) return NOTHING
  state.cursor = event.cursor
  const id = event.call_id
  switch (event.type) {
    case 'call.started':
    case 'call.updated':
      if (id !== null && event.call) setInfo(state, id, event.call, event)
      break
    case 'call.ended':
      if (id !== null) endCall(state, id, event)
      break
    case 'call.left':
      if (id !== null) dropCall(state, id)
      break
    case 'utterance.final':
      if (id !== null && event.utterance) setFinal(state, id, event.utterance, event)
      break
    case 'emotion.updated':
      if (id !== null && event.emotion) setMood(state, id, event.emotion)
      break
    case 'script.progress':
      if (id !== null && event.progress) setProgress(state, id, event.progress)
      break
    case 'alert.raised':
    case 'alert.updated':
      if (event.alert) return setAlert(state, event.alert, event)
      break
  }
  return DONE
}

function applyPassing(state: FloorState, event: Published): Change {
  const id = event.call_id
  if (event.type === 'health') {
    state.health = event.health ?? null
    return DONE
  }
  const call = id === null ? undefined : state.calls.get(id)
  if (!call || call.state === 'ended') return NOTHING
  const reached = reach(call, event.media_ms)
  if (event.type === 'call.updated') {
    state.calls.set(call.call_id, { ...reached, speaking: event.speaking ?? {} })
    return DONE
  }
  const text = event.utterance
  if (!text) return NOTHING
  const key = channelKey(call.call_id, text.role)
  const last = state.finals.get(key)
  if (last !== undefined && text.start_ms <= last) return NOTHING
  state.partials.set(key, text)
  if (reached !== call) state.calls.set(call.call_id, reached)
  return DONE
}

/** The call is somebody else's now: nothing of it is to be seen here any more. */
function dropCall(state: FloorState, id: string): void {
  state.calls.delete(id)
  state.recent.delete(id)
  for (const [alertId, alert] of state.alerts) if (alert.call_id === id) state.alerts.delete(alertId)
  for (const role of ['agent', 'customer', 'unknown'] as const) {
    state.partials.delete(channelKey(id, role))
    state.finals.delete(channelKey(id, role))
  }
}

/** The call's length is at least the media time of its latest event. */
function reach(call: FloorCall, mediaMs: number | null): FloorCall {
  if (mediaMs === null || mediaMs <= (call.duration_ms ?? 0)) return call
  return { ...call, duration_ms: mediaMs }
}

function newCall(info: CallInfo, at: string): FloorCall {
  return {
    ...info,
    state: 'live',
    started_at: at,
    ended_at: null,
    reason: null,
    by: null,
    duration_ms: null,
    alerts: { ...NONE },
    open: { ...NONE },
    moods: [],
    progress: null,
    last_text: null,
    speaking: {},
    gap_ms: 0,
    recording: false,
  }
}

/** Only its start puts a call on the floor: late words of one that ended before must not revive it. */
function setInfo(state: FloorState, id: string, info: CallInfo, event: Published): void {
  const known = state.calls.get(id)
  if (!known && event.type !== 'call.started') return
  const call = known ? { ...known, ...info } : newCall(info, event.at)
  state.calls.set(id, call.state === 'live' ? reach(call, event.media_ms) : call)
}

function ended(
  call: FloorCall,
  at: string | null,
  reason: string | null,
  length: number | null,
  by: Channel | null = null,
): FloorCall {
  return { ...call, state: 'ended', ended_at: at, reason, by, duration_ms: length ?? call.duration_ms, speaking: {} }
}

function endCall(state: FloorState, id: string, event: Published): void {
  const call = state.calls.get(id)
  if (!call) return
  state.calls.set(id, ended(call, event.at, event.reason ?? null, event.media_ms, event.by ?? null))
  for (const role of ['agent', 'customer', 'unknown'] as const) {
    state.partials.delete(channelKey(id, role))
    state.finals.delete(channelKey(id, role))
  }
  forgetOldest(state)
}

function setFinal(state: FloorState, id: string, text: Text, event: Published): void {
  const key = channelKey(id, text.role)
  const call = state.calls.get(id)
  if (!call) return
  const partial = state.partials.get(key)
  if (partial && partial.start_ms <= text.start_ms) state.partials.delete(key)
  if (call.state === 'live') {
    state.finals.set(key, Math.max(text.start_ms, state.finals.get(key) ?? 0))
    if (text.text !== '') addRecent(state, id, text)
  }
  const before = call.last_text
  // An empty final only says that there was nothing to hear; the last words stay.
  const latest = text.text !== '' && (before === null || text.end_ms >= before.end_ms) ? text : before
  const reached = call.state === 'live' ? reach(call, event.media_ms) : call
  state.calls.set(id, { ...reached, last_text: latest })
}

/** The curve is the customer's; one channel with both in it is everybody's. */
function setMood(state: FloorState, id: string, emotion: Emotion): void {
  const call = state.calls.get(id)
  if (!call || emotion.role === 'agent') return
  const mood: Mood = {
    media_ms: emotion.media_end_ms, level: emotion.level, trend: emotion.trend, feeling: emotion.feeling,
  }
  // An utterance that is read again comes again, with the same end or one near it.
  const before = call.moods.filter((each) => each.media_ms < mood.media_ms)
  state.calls.set(id, { ...call, moods: [...before, mood].slice(-MOST_MOODS) })
}

function setProgress(state: FloorState, id: string, told: Progress): void {
  const call = state.calls.get(id)
  if (!call) return
  if (told.script === RULES && call.progress !== null && call.progress.script !== RULES) return
  state.calls.set(id, { ...call, progress: scriptState(told) })
}

/** As the server tells it with the floor (`app/api/floor_views.py`). */
export function scriptState(told: Progress): ScriptState {
  const needed = told.steps.filter((step) => step.state !== 'skipped')
  const due = needed.find((step) => step.state === 'due')
  return {
    script: told.script,
    name: told.name,
    done: needed.filter(({ state }) => state === 'done' || state === 'too_late' || state === 'out_of_order').length,
    steps: needed.length,
    missed: needed.filter(({ state }) => state === 'missed').length,
    next: due?.name ?? null,
    due_ms: due?.due_ms ?? null,
  }
}

function addRecent(state: FloorState, id: string, text: Text): void {
  const others = (state.recent.get(id) ?? []).filter((each) => each.utterance_id !== text.utterance_id)
  const all = [...others, text].sort((a, b) => a.start_ms - b.start_ms)
  state.recent.set(id, all.slice(-MOST_RECENT))
}

function setAlert(state: FloorState, alert: Alert, event: Published): Change {
  const known = state.alerts.get(alert.id)
  const call = state.calls.get(alert.call_id)
  const shown: FloorAlert = {
    ...alert,
    // The time to deliver is only told the first time; a later state must not take it away.
    latency_ms: { ...known?.latency_ms, ...withoutNull(alert.latency_ms ?? {}) },
    at: known?.at ?? event.at,
    agent: known?.agent ?? call?.agent ?? null,
    queue: known?.queue ?? call?.queue ?? null,
    customer_level: known?.customer_level ?? call?.customer_level ?? null,
  }
  state.alerts.set(alert.id, shown)
  // One that is only changed now was raised before: it has been counted, open as all are at first.
  const before = known ?? (event.type === 'alert.updated' ? { ...shown, state: 'open' as const } : undefined)
  state.open = recount(state.open, before, shown, isOpen)
  if (call) {
    const alerts = recount(call.alerts, before, shown, isCounted)
    const open = recount(call.open, before, shown, isOpen)
    if (alerts !== call.alerts || open !== call.open) state.calls.set(call.call_id, { ...call, alerts, open })
  }
  forgetOldest(state)
  return known === undefined && stands(shown) ? { applied: true, raised: shown } : DONE
}

/** A partial transcript may raise an alert that the final one does not bear out. */
export function stands(alert: Alert): boolean {
  return alert.state !== 'withdrawn'
}

/** What a call's badge counts: neither taken back by a later transcript nor by a person. */
function isCounted(alert: Alert): boolean {
  return stands(alert) && alert.state !== 'false_alarm'
}

export function isOpen(alert: Alert): boolean {
  return alert.state === undefined || alert.state === 'open' || alert.state === 'escalated'
}

function recount(
  counts: AlertCounts,
  before: Alert | undefined,
  after: Alert,
  counted: (alert: Alert) => boolean,
): AlertCounts {
  const was = before && counted(before) ? before.severity : null
  const is = counted(after) ? after.severity : null
  if (was === is) return counts
  const changed = { ...counts }
  if (was) changed[was] = Math.max(0, changed[was] - 1)
  if (is) changed[is] += 1
  return changed
}

function withoutNull<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== null)) as Partial<T>
}

/** A page stays open for a whole shift: keep what a person would still look at. */
function forgetOldest(state: FloorState): void {
  let past = 0
  for (const call of state.calls.values()) if (call.state === 'ended') past += 1
  if (past > MOST_ENDED) {
    const ended = [...state.calls.values()].filter((call) => call.state === 'ended')
    ended.sort((a, b) => ((a.ended_at ?? '') < (b.ended_at ?? '') ? -1 : 1))
    for (const call of ended.slice(0, past - MOST_ENDED)) {
      state.calls.delete(call.call_id)
      state.recent.delete(call.call_id)
    }
  }
  if (state.alerts.size > MOST_ALERTS) {
    forgetAlerts(state.alerts)
  }
}

function forgetAlerts(alerts: Map<string, FloorAlert>): void {
  const ofCall = new Map<string, FloorAlert[]>()
  for (const alert of alerts.values()) {
    const of = ofCall.get(alert.call_id)
    if (of) of.push(alert)
    else ofCall.set(alert.call_id, [alert])
  }
  for (const of of ofCall.values()) {
    of.sort(oldestFirst)
    for (const alert of of.slice(0, Math.max(0, of.length - MOST_OF_CALL))) alerts.delete(alert.id)
  }
  const byAge = [...alerts.values()].sort(oldestFirst)
  for (const alert of byAge.slice(0, Math.max(0, alerts.size - MOST_ALERTS))) alerts.delete(alert.id)
}

function oldestFirst(a: FloorAlert, b: FloorAlert): number {
  const [one, other] = [a.at ?? '', b.at ?? '']
  return (one < other ? -1 : one > other ? 1 : 0) || a.media_end_ms - b.media_end_ms
}
