/** What the desk knows of the running call, and how one event changes it. Same manners as `feed/reducer.ts`. */

import type { CallView, Desk, Emotion, LastCall, Progress, Published, Said, Step, Whisper } from '../api/types'
import { heard } from './pace'

export interface DeskState {
  cursor: number
  call: CallView | null
  others: number
  /** Those to this agent, oldest first. */
  whispers: readonly Whisper[]
  /** One of each script, the last changed last. */
  progress: readonly Progress[]
  /** The agent's own, the last one. */
  emotion: Emotion | null
  said: readonly Said[]
  last: readonly LastCall[]
}

const MOST_WHISPERS = 100
/** The rules' own list of what is still to be said; all others are scripts. */
const RULES = 'rules'

export function loadDesk(desk: Desk): DeskState {
  const { live } = desk
  return {
    cursor: desk.cursor,
    call: live?.call ?? null,
    others: desk.others,
    whispers: live?.whispers ?? [],
    progress: live?.progress ?? [],
    emotion: live?.emotions.at(-1) ?? null,
    said: live?.said ?? [],
    last: desk.last,
  }
}

export interface Outcome {
  state: DeskState
  /** Another call begins, or this one ends or leaves: only the server knows what is to be shown then. */
  reload: boolean
}

export function applyToDesk(state: DeskState, event: Published, me: string): Outcome {
  const passing =
    event.type === 'utterance.partial' || event.type === 'health' || (event.type === 'call.updated' && !event.call)
  if (passing) return { state, reload: false }
  if (event.cursor <= state.cursor) return { state, reload: false }
  const next: DeskState = { ...state, cursor: event.cursor }
  if (event.type === 'call.started' || event.type === 'call.ended' || event.type === 'call.left') {
    return { state: next, reload: true }
  }
  if (next.call === null || event.call_id !== next.call.call_id) return { state: next, reload: false }
  if ((event.media_ms ?? 0) > (next.call.duration_ms ?? 0)) next.call = { ...next.call, duration_ms: event.media_ms }
  switch (event.type) {
    case 'call.updated':
      if (event.call) next.call = { ...next.call, ...event.call }
      break
    case 'script.progress':
      if (event.progress) {
        const told = event.progress
        next.progress = [...state.progress.filter((each) => each.script !== told.script), told]
      }
      break
    case 'emotion.updated':
      if (event.emotion?.role === 'agent') next.emotion = event.emotion
      break
    case 'utterance.final':
      if (event.utterance?.role === 'agent') next.said = heard(state.said, event.utterance)
      break
    case 'whisper.sent':
    case 'whisper.seen':
      if (event.whisper?.to === me) next.whispers = withWhisper(state.whispers, event.whisper)
      break
  }
  return { state: next, reload: false }
}

export function withWhisper(whispers: readonly Whisper[], whisper: Whisper): readonly Whisper[] {
  const at = whispers.findIndex((each) => each.id === whisper.id)
  return at < 0 ? [...whispers, whisper].slice(-MOST_WHISPERS) : whispers.with(at, whisper)
}

/** The lists to show: the script that the call is in, then the rules' own. */
export function lists(progress: readonly Progress[]): readonly Progress[] {
  const script = progress.findLast((each) => each.script !== RULES)
  const rules = progress.find((each) => each.script === RULES)
  return [script, rules].filter((each) => each !== undefined)
}

/** The step that is to be said now: of those whose time runs the one that ends first, else the next required. */
export function currentStep(progress: readonly Progress[]): Step | null {
  const steps = lists(progress).flatMap((each) => each.steps)
  const due = steps.filter((step) => step.state === 'due').sort((a, b) => (a.due_ms ?? Infinity) - (b.due_ms ?? Infinity))
  return due[0] ?? steps.find((step) => step.state === 'waiting' && step.required !== false) ?? null
}

/** What the script lacked, for the look back. */
export function lacking(progress: readonly Progress[]): readonly Step[] {
  return progress
    .flatMap((each) => each.steps)
    .filter(({ state }) => state === 'missed' || state === 'too_late' || state === 'out_of_order')
}
