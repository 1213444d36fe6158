/**
 * What the server sends. Field names are those of `streams/events`; `…_ms` is media time.
 * Fields at their default may be left out of events, hence the optional ones.
 */

export type Channel = 'agent' | 'customer' | 'unknown'
export type Severity = 'info' | 'warning' | 'critical'
export type AlertState = 'open' | 'acknowledged' | 'resolved' | 'false_alarm' | 'escalated' | 'withdrawn'
export type AlertAction =
  | 'take'
  | 'release'
  | 'acknowledge'
  | 'resolve'
  | 'false_alarm'
  | 'reopen'
  | 'assign'
  | 'comment'
  | 'escalate'
  | 'appeal'
  | 'accept_appeal'
  | 'reject_appeal'
export type Match = 'exact' | 'pinyin' | 'regex' | 'similar' | 'timer' | 'count' | 'entity' | 'signal' | 'script'
export type Names = Record<string, string>

export interface CallInfo {
  call_id: string
  protocol?: string
  agent?: string | null
  team?: string | null
  queue?: string | null
  customer?: string | null
  customer_level?: string | null
  direction?: 'inbound' | 'outbound' | null
  attributes?: Record<string, string>
  channels?: Channel[]
}

export interface Speaking {
  agent?: boolean
  customer?: boolean
  unknown?: boolean
}

export interface Text {
  utterance_id: string
  role: Channel
  start_ms: number
  end_ms: number
  text: string
  confidence?: number | null
}

export interface Evidence {
  text: string
  matched?: string[]
  /** Ranges of code points (not UTF-16 units) in `text`. */
  spans?: [number, number][]
  expected?: string[]
  how?: Match
  confidence?: number | null
}

export interface Latency {
  vad?: number | null
  queue?: number | null
  asr?: number | null
  rules?: number | null
  delivery?: number | null
  total?: number | null
}

/** How an agent’s objection to an alert stands. */
export type Appeal = 'open' | 'accepted' | 'rejected'

export interface Alert {
  id: string
  call_id: string
  rule_id: string
  rule_version: string
  name: Names
  severity: Severity
  role: Channel
  media_start_ms: number
  media_end_ms: number
  evidence: Evidence
  utterance_id?: string | null
  state?: AlertState
  owner?: string | null
  latency_ms?: Latency
  /** What to check: of alerts about the service itself. */
  advice?: Names | null
  /** Wall clock: it escalates then, if nobody has taken it. */
  escalates_at?: string | null
  comments?: number
  /** What became of the agent's objection. */
  appeal?: Appeal | null
}

/** One step of an alert's life. */
export interface AlertChange {
  id: string
  action: AlertAction
  /** Account; `null`: the clock. */
  by: string | null
  at: string
  from_state: AlertState
  to_state: AlertState
  from_owner: string | null
  to_owner: string | null
  /** A comment, or a reason. */
  text?: string | null
}

export interface AlertHistory {
  alert: FloorAlert
  /** Oldest first. */
  changes: AlertChange[]
}

/** An alert with what the floor shows beside it. */
export interface FloorAlert extends Alert {
  at?: string | null
  agent?: string | null
  queue?: string | null
  customer_level?: string | null
}

export interface Marker {
  id: string
  call_id: string
  rule_id: string
  severity: Severity
  role: Channel
  label: Names
  media_start_ms: number
  media_end_ms: number
  alert_id?: string | null
}

export interface Hint {
  id: string
  call_id: string
  rule_id: string
  text: Names
  media_ms: number
  severity?: Severity
}

export type StepState = 'waiting' | 'due' | 'done' | 'missed' | 'skipped' | 'too_late' | 'out_of_order'

/** One line of the checklist. */
export interface Step {
  id: string
  name: Names
  state: StepState
  required?: boolean
  /** Media time of its deadline. */
  due_ms?: number | null
  done_ms?: number | null
  hint?: Names | null
}

/** Where a call stands in a script; the whole checklist each time. */
export interface Progress {
  call_id: string
  script: string
  name: Names
  media_ms: number
  steps: Step[]
  score?: number | null
}

export interface Health {
  step: number
  name: 'all' | 'fewer_partials' | 'no_partials' | 'no_retries' | 'refuse_calls'
  queue_wait_ms?: number | null
  calls?: number
}

export type AlertCounts = Record<Severity, number>

export interface CallView extends CallInfo {
  state: 'live' | 'ended'
  started_at: string
  ended_at: string | null
  reason: string | null
  /** Who hung up, where the telephony said so. */
  by?: Channel | null
  duration_ms: number | null
  alerts: AlertCounts
  last_text: Text | null
  speaking: Speaking
  gap_ms: number
  recording: boolean
}

export type Feeling = 'calm' | 'pleased' | 'anxious' | 'sad' | 'displeased' | 'angry'

/** How somebody felt in one utterance: 0 (calm) to 10; `trend` above zero: it gets worse. */
export interface Emotion {
  utterance_id?: string
  role: Channel
  media_end_ms: number
  level: number
  trend: number
  feeling: Feeling
}

/** A point of a card's curve. */
export interface Mood {
  media_ms: number
  level: number
  trend: number
  feeling: Feeling
}

/** How far a call is in its script. */
export interface ScriptState {
  script: string
  name: Names
  done: number
  steps: number
  missed: number
  /** The step whose time runs, and until when. */
  next?: Names | null
  due_ms?: number | null
}

/** A call as its card shows it. */
export interface FloorCall extends CallView {
  /** Alerts that nobody has taken in hand. */
  open: AlertCounts
  /** The customer's last ones, oldest first. */
  moods: readonly Mood[]
  progress: ScriptState | null
}

/** What no browser can know by itself; `null` and 0: nobody has told. */
export interface Figures {
  acknowledge_ms: number | null
  acknowledged: number
  answered: number
  in_time: number
  answer_limit_s: number
}

/** What somebody wrote about a moment of a call; not for its agent. */
export interface Note {
  id: string
  call_id: string
  media_ms: number
  by: string
  at: string
  text: string
}

/** Somebody asked the telephony to hand the call over. */
export interface Takeover {
  id: string
  call_id: string
  media_ms: number
  by: string
  at: string
  reason: string
  state: 'asked' | 'accepted' | 'failed'
  attempts: number
  /** Of HTTP. */
  status: number | null
  problem: 'refused' | 'unreachable' | 'timeout' | 'lost' | null
}

/** How loud a recording is: the largest sample of each bin, 255 is full scale. */
export interface Waveform {
  ready: boolean
  duration_ms: number
  bin_ms: number
  /** Agent, customer; one where both are mixed. */
  channels: number[][]
}

export type EventType =
  | 'call.started'
  | 'call.updated'
  | 'call.ended'
  | 'call.left'
  | 'utterance.partial'
  | 'utterance.final'
  | 'alert.raised'
  | 'alert.updated'
  | 'marker.added'
  | 'hint.shown'
  | 'script.progress'
  | 'emotion.updated'
  | 'note.added'
  | 'takeover.asked'
  | 'takeover.accepted'
  | 'takeover.failed'
  | 'hint.answered'
  | 'whisper.sent'
  | 'whisper.seen'
  | 'health'

export interface Published {
  cursor: number
  type: EventType
  call_id: string | null
  at: string
  media_ms: number | null
  call?: CallInfo
  speaking?: Speaking
  reason?: string
  by?: Channel
  utterance?: Text
  alert?: Alert
  /** Of `alert.updated`: what somebody did to it. */
  change?: AlertChange
  marker?: Marker
  hint?: Hint
  progress?: Progress
  emotion?: Emotion
  health?: Health
  note?: Note
  takeover?: Takeover
  answer?: HintAnswer
  whisper?: Whisper
}

export type Frame =
  | Published
  | { type: 'hello'; cursor: number; heartbeat_s?: number }
  | { type: 'resync' }
  | { type: 'heartbeat' }

export interface User {
  username: string
  name: string
  role: 'agent' | 'supervisor' | 'inspector' | 'administrator'
}

export type Role = User['role']
export const ROLES: readonly Role[] = ['agent', 'supervisor', 'inspector', 'administrator']

/** An account as administrators see it. */
export interface Account {
  username: string
  name: string
  role: Role
  /** `*`: all. */
  teams: string[]
  created_at: string
  disabled_at: string | null
  /** It came from the identity provider. */
  external: boolean
}

export interface ApiToken {
  name: string
  /** Its first characters. */
  begins: string
  scopes: string[]
  teams: string[]
  created_at: string
  created_by: string
  expires_at: string
  revoked_at: string | null
}

export interface AuditEntry {
  id: number
  at: string
  username: string
  action: string
  subject: string | null
  address: string | null
  detail: string | null
  hash: string
}

export interface AuditVerdict {
  entries: number
  head: string
  /** The first entry that is not what was written there. */
  broken: number | null
}

export interface Floor {
  cursor: number
  calls: FloorCall[]
  alerts: FloorAlert[]
  /** Of the last day, all of them: `alerts` may be fewer. */
  open: AlertCounts
  figures: Figures
  health: Health | null
}

export interface CallPage {
  calls: CallView[]
  next: string | null
}

export interface CallDetail {
  cursor: number
  call: CallView
  utterances: (Text & { at?: string | null })[]
  alerts: FloorAlert[]
  markers: Marker[]
  emotions?: Emotion[]
  /** The last changed last. */
  progress?: Progress[]
  notes?: Note[]
  takeovers?: Takeover[]
  whispers?: Whisper[]
  /** Utterances of which the original is kept. */
  revealable?: string[]
  keeps_originals?: boolean
  takeover_possible?: boolean
}

// ── the agent's desk ────────────────────────────────────────────────────────────────────────────

export type Worth = 'useful' | 'not_useful' | 'dismissed'

/** What the agent said of a hint. */
export interface HintAnswer {
  hint_id: string
  call_id: string
  rule_id: string
  answer: Worth
  by: string
}

/** A supervisor's words to the agent of a running call. */
export interface Whisper {
  id: string
  call_id: string
  text: string
  by: string
  media_ms: number
  /** The agent whose call it was at that moment. */
  to?: string | null
  sent_at?: string | null
  /** When it first stood on the agent's screen. */
  seen_at?: string | null
  confirmed_at?: string | null
}

/** A stretch of the agent's speech. */
export interface Said {
  utterance_id: string
  start_ms: number
  end_ms: number
  characters: number
}

export interface DeskCall {
  call: CallView
  hints: { hint: Hint; answer: Worth | null }[]
  whispers: Whisper[]
  progress: Progress[]
  emotions: Emotion[]
  said: Said[]
}

export interface LastCall {
  call_id: string
  started_at: string
  ended_at: string | null
  duration_ms: number
  queue: string | null
  customer: string | null
  alerts: number
  /** Wall clock; `null`: no appeals are taken. */
  appeal_until: string | null
}

export interface Desk {
  cursor: number
  live: DeskCall | null
  /** Further running calls of this agent. */
  others: number
  last: LastCall[]
}

export interface ReviewedAlert extends FloorAlert {
  /** The appeal and its answer. */
  appeals: AlertChange[]
}

export interface Review {
  cursor: number
  call: CallView
  alerts: ReviewedAlert[]
  progress: Progress[]
  appeal_until: string | null
}
