/** One call in full, and how one event changes it. Same manners as `reducer.ts`. */

import type {
  CallDetail,
  CallView,
  Emotion,
  FloorAlert,
  Marker,
  Note,
  Progress,
  Published,
  Takeover,
  Text,
  Whisper,
} from '../api/types'

export interface DetailState {
  cursor: number
  call: CallView
  /** By start; finals only. */
  utterances: Text[]
  /** By role. */
  partials: Text[]
  alerts: FloorAlert[]
  markers: Marker[]
  /** In the order in which they were told. */
  emotions: Emotion[]
  notes: Note[]
  takeovers: Takeover[]
  whispers: Whisper[]
  /** Utterances of which the original is known to be kept. */
  revealable: ReadonlySet<string>
  /** Whether originals of what is said from now on are kept. */
  keepsOriginals: boolean
  takeoverPossible: boolean
  /** The lists that hold now, in the order in which they are shown. */
  progress: Progress[]
}

/** The rules' own list: what they wait to hear. All others are scripts, and a call is in one at a time. */
const RULES = 'rules'

export function loadDetail(detail: CallDetail): DetailState {
  return {
    cursor: detail.cursor,
    call: detail.call,
    utterances: [...detail.utterances].sort(byStart),
    partials: [],
    alerts: detail.alerts,
    markers: detail.markers,
    emotions: detail.emotions ?? [],
    notes: detail.notes ?? [],
    takeovers: detail.takeovers ?? [],
    whispers: detail.whispers ?? [],
    revealable: new Set(detail.revealable),
    keepsOriginals: detail.keeps_originals ?? false,
    takeoverPossible: detail.takeover_possible ?? false,
    progress: (detail.progress ?? []).reduce(withProgress, []),
  }
}

function withProgress(lists: readonly Progress[], told: Progress): Progress[] {
  const others = lists.filter((each) => each.script !== told.script && (each.script === RULES || told.script === RULES))
  return told.script === RULES ? [...others, told] : [told, ...others]
}

/** The state after the event; the same object when the event changes nothing. */
export function applyToDetail(state: DetailState, event: Published): DetailState {
  if (event.call_id !== state.call.call_id) return state
  const passing = event.type === 'utterance.partial' || (event.type === 'call.updated' && !event.call)
  if (passing ? event.cursor < state.cursor : event.cursor <= state.cursor) return state
  const next: DetailState = { ...state, cursor: event.cursor }
  if (next.call.state === 'live' && (event.media_ms ?? 0) > (next.call.duration_ms ?? 0)) {
    next.call = { ...next.call, duration_ms: event.media_ms }
  }
  switch (event.type) {
    case 'call.started':
    case 'call.updated':
      if (event.call) next.call = { ...next.call, ...event.call }
      else if (next.call.state === 'live') next.call = { ...next.call, speaking: event.speaking ?? {} }
      break
    case 'call.ended':
      next.call = {
        ...next.call,
        state: 'ended',
        ended_at: event.at,
        reason: event.reason ?? null,
        by: event.by ?? null,
        duration_ms: event.media_ms ?? next.call.duration_ms,
        speaking: {},
      }
      next.partials = []
      break
    case 'utterance.partial':
      if (event.utterance) next.partials = withPartial(state, event.utterance)
      break
    case 'utterance.final':
      if (event.utterance) {
        const text = event.utterance
        next.utterances = upsert(state.utterances, text, (each) => each.utterance_id).sort(byStart)
        next.partials = state.partials.filter((each) => each.role !== text.role || each.start_ms > text.start_ms)
      }
      break
    case 'alert.raised':
    case 'alert.updated':
      if (event.alert) {
        const known = state.alerts.find((each) => each.id === event.alert?.id)
        const alert = { ...event.alert, at: known?.at ?? event.at }
        next.alerts = upsert(state.alerts, alert, (each) => each.id)
      }
      break
    case 'script.progress':
      if (event.progress) next.progress = withProgress(state.progress, event.progress)
      break
    case 'emotion.updated':
      if (event.emotion) next.emotions = upsert(state.emotions, event.emotion, (each) => each.utterance_id ?? `${each.role} ${each.media_end_ms}`)
      break
    case 'note.added':
      if (event.note) next.notes = upsert(state.notes, event.note, (each) => each.id)
      break
    case 'takeover.asked':
    case 'takeover.accepted':
    case 'takeover.failed':
      if (event.takeover) next.takeovers = upsert(state.takeovers, event.takeover, (each) => each.id)
      break
    case 'whisper.sent':
    case 'whisper.seen':
      if (event.whisper) next.whispers = upsert(state.whispers, event.whisper, (each) => each.id)
      break
    case 'marker.added':
      if (event.marker) next.markers = upsert(state.markers, event.marker, (each) => each.id)
      break
  }
  return next
}

function withPartial(state: DetailState, text: Text): Text[] {
  if (state.call.state === 'ended') return state.partials
  const overtaken = state.utterances.some((each) => each.role === text.role && each.start_ms >= text.start_ms)
  if (overtaken) return state.partials
  return [...state.partials.filter((each) => each.role !== text.role), text].sort(byStart)
}

function upsert<T>(list: readonly T[], value: T, key: (each: T) => string): T[] {
  const at = list.findIndex((each) => key(each) === key(value))
  return at < 0 ? [...list, value] : list.with(at, value)
}

function byStart(a: Text, b: Text): number {
  return a.start_ms - b.start_ms || a.role.localeCompare(b.role)
}
