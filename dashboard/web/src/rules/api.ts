/** Requests about rules, and what is answered. */

import { request } from '@/api/http'
import type { Names, Severity } from '@/api/types'

export type Mode = 'live' | 'shadow' | 'off'
export type Speaker = 'agent' | 'customer' | 'unknown'

export interface RuleRow {
  id: string
  name: Names
  severity: Severity
  role: string
  mode: Mode
  actions: string[]
  version: string
  queues: string[]
  group: string | null
  score: number
  counts: { hits: number; confirmed: number; false_alarms: number; withdrawn: number; shadow: number }
  pack: string
  last_at: string | null
  /** 0 to 1; `null` while nothing was judged. */
  precision: number | null
  interval: [number, number] | null
}

export interface PackRow {
  id: string
  file: string
  version: string
  name: Names
  publication: number | null
  replaces: string | null
}

export interface PackProblem {
  file: string
  line: number
  column: number
  message: string
}

export interface RuleList {
  version: string
  loaded_at: string
  packs: PackRow[]
  rules: RuleRow[]
  in_use: Record<string, number>
  refused: { at: string; by: string; problems: PackProblem[] } | null
}

export interface RuleDetail {
  rule: RuleRow
  hint: Names | null
  advice: Names | null
  cooldown_s: number
  source: { file: string; first_line: number; text: string } | null
  tests: { name: string; line: number; turns: [Speaker, string][]; expect: string[] }[]
  alerts: {
    id: string
    call_id: string
    at: string
    media_start_ms: number
    state: string
    severity: Severity
    agent: string | null
  }[]
}

export type ShadowKind = 'agree' | 'only_shadow' | 'only_live'

export interface ShadowComparison {
  rule_id: string
  against: string | null
  since: string
  shadow: number
  live: number
  agree: number
  only_shadow: number
  only_live: number
  capped: boolean
  beside: [string, number][]
  days: ({ day: string } & Record<ShadowKind, number>)[]
  places: { kind: ShadowKind; call_id: string; start_ms: number; at: string }[]
}

export interface Clause {
  operator: string
  holds: boolean
  how: string | null
  words: string[]
  spans: [number, number][]
}

export interface Tested {
  version: string | null
  fired: {
    rule_id: string
    turn: number | null
    role: Speaker
    shadow: boolean
    how: string
    confidence: number | null
    text: string
    spans: [number, number][]
    expected: string[]
    start_ms: number
    end_ms: number
  }[]
  nearly: {
    rule_id: string
    turn: number
    why: string
    needs: string[]
    how: string | null
    words: string[]
    spans: [number, number][]
    score: number | null
    clauses: Clause[]
  }[]
  names: Record<string, Names>
  severities: Record<string, Severity>
  problems: PackProblem[]
}

export interface SpokenTurn {
  role: Speaker
  text: string
  start_s?: number
}

export type DraftState = 'draft' | 'submitted' | 'published' | 'discarded'

export interface Draft {
  id: number
  pack_id: string
  state: DraftState
  text: string
  digest: string
  revision: number
  note: string
  author: string
  editors: string[]
  edited_by: string
  origin: 'draft' | 'rollback'
  of: number | null
  base: string | null
  created_at: string
  changed_at: string
  submitted_by: string | null
  submitted_at: string | null
  decided_by: string | null
  decided_at: string | null
  decision: string
  may_approve: boolean
}

export interface FailedDialogue {
  rule_id: string
  name: string
  line: number
  missing: string[]
  unexpected: string[]
}

export interface DraftCheck {
  problems: PackProblem[]
  failed: FailedDialogue[]
  version: string | null
  rules: number
  scripts: number
  dialogues: number
  own: string
}

export interface Difference {
  added: number
  removed: number
  lines: { kind: 'same' | 'added' | 'removed' | 'gap'; before: number | null; after: number | null; text: string }[]
}

export interface Publication {
  id: number
  pack_id: string
  version: string
  digest: string
  origin: 'draft' | 'rollback' | 'file' | 'withdrawn'
  of: number | null
  draft_id: number | null
  author: string
  editors: string[]
  submitted_by: string | null
  approver: string
  at: string
  note: string
}

export interface Trial {
  id: number
  draft_id: number
  digest: string
  version: string
  by: string
  at: string
  since: string | null
  most: number
  state: 'running' | 'done' | 'failed' | 'cancelled'
  done: number
  total: number
  ended_at: string | null
  error: string | null
}

export interface TrialPlace {
  call_id: string
  start_ms: number
  end_ms: number
  text: string | null
  role: Speaker | null
  state: string | null
}

export interface TrialRule {
  rule_id: string
  name: Names
  same: number
  new: number
  gone: number
  false_alarms_gone: number
  false_alarms_kept: number
  confirmed_gone: number
  limited: string[]
  new_at: TrialPlace[]
  gone_at: TrialPlace[]
}

export interface TrialView {
  trial: Trial
  outcome: {
    version: string
    in_force: string
    calls: number
    seconds: number
    hidden: number
    rules: TrialRule[]
  } | null
}

const segment = encodeURIComponent
const base = '/api/rules'

export const rulesApi = {
  list: () => request<RuleList>('GET', base),
  rule: (id: string) => request<RuleDetail>('GET', `${base}/${segment(id)}`),
  shadow: (id: string, against: string | null) =>
    request<ShadowComparison>('GET', `${base}/${segment(id)}/shadow${against ? `?against=${segment(against)}` : ''}`),
  test: (body: { turns: SpokenTurn[]; queue?: string; whole?: boolean; draft?: number }) =>
    request<Tested>('POST', `${base}/test`, body),
  drafts: () => request<{ drafts: Draft[] }>('GET', `${base}/drafts`),
  addDraft: (body: { pack?: string; text?: string; note?: string }) => request<Draft>('POST', `${base}/drafts`, body),
  draft: (id: number) => request<Draft>('GET', `${base}/drafts/${id}`),
  edit: (id: number, text: string, note: string, seen: string) =>
    request<Draft>('PUT', `${base}/drafts/${id}`, { text, note, seen }),
  check: (id: number) => request<DraftCheck>('POST', `${base}/drafts/${id}/check`),
  diff: (id: number) => request<Difference>('GET', `${base}/drafts/${id}/diff`),
  step: (id: number, step: 'submit' | 'discard', seen: string) =>
    request<Draft>('POST', `${base}/drafts/${id}/${step}`, { seen }),
  giveBack: (id: number, seen: string, reason: string) =>
    request<Draft>('POST', `${base}/drafts/${id}/return`, { seen, reason }),
  approve: (id: number, seen: string) =>
    request<{ draft: Draft; publication: Publication; in_force: boolean }>('POST', `${base}/drafts/${id}/approve`, {
      seen,
    }),
  publications: () =>
    request<{ publications: Publication[]; next: string | null; in_force: number[] }>('GET', `${base}/publications`),
  publicationDiff: (id: number) => request<Difference>('GET', `${base}/publications/${id}/diff`),
  rollback: (id: number) => request<Draft>('POST', `${base}/publications/${id}/rollback`),
  trials: (draft: number) => request<{ trials: Trial[] }>('GET', `${base}/drafts/${draft}/backtests`),
  trial: (id: number) => request<TrialView>('GET', `${base}/backtests/${id}`),
  addTrial: (draft: number, body: { seen: string; days?: number; calls: number }) =>
    request<TrialView>('POST', `${base}/drafts/${draft}/backtests`, body),
  cancelTrial: (id: number) => request<TrialView>('POST', `${base}/backtests/${id}/cancel`),
}
