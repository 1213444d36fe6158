/** Requests to the server. Every failure becomes an `ApiError` that knows what to tell the person. */

import type {
  Account,
  AlertHistory,
  AlertState,
  ApiToken,
  Appeal,
  AuditEntry,
  AuditVerdict,
  CallDetail,
  CallPage,
  Desk,
  Figures,
  Floor,
  FloorAlert,
  HintAnswer,
  Names,
  Note,
  Review,
  Takeover,
  User,
  Waveform,
  Whisper,
  Worth,
} from './types'

export class ApiError extends Error {
  constructor(
    /** The server's word for it, or `network`, `timeout`, `unexpected`. */
    readonly code: string,
    /** HTTP status; 0 when no answer came. */
    readonly status: number,
    /** What the server says about it, by language. */
    readonly text: Names | null = null,
    /** What exactly was wrong with what was sent. */
    readonly detail: string | null = null,
    /** What a program needs to know besides. */
    readonly more: Record<string, string | null> = {},
  ) {
    super(code)
    this.name = 'ApiError'
  }
}

/** What to do when the server says that the session is over. Set once by the session. */
let onLoginRequired: () => void = () => undefined
export function whenLoginRequired(act: () => void): void {
  onLoginRequired = act
}

/** Server clock minus this machine's clock, milliseconds; durations of live calls tick by it. */
let clockOffset = 0
export function serverNow(): number {
  return Date.now() + clockOffset
}

const TIMEOUT_MS = 15_000

export async function request<T>(method: string, path: string, body?: unknown, quiet = false): Promise<T> {
  let response: Response
  const headers: Record<string, string> = { Accept: 'application/json', 'X-Duting': '1' }
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
  } catch (error) {
    const timeout = error instanceof DOMException && error.name === 'TimeoutError'
    throw new ApiError(timeout ? 'timeout' : 'network', 0)
  }
  learnClock(response.headers.get('Date'))
  if (response.ok) {
    if (response.status === 204) return undefined as T
    try {
      return (await response.json()) as T
    } catch {
      throw new ApiError('unexpected', response.status)
    }
  }
  const error = await readError(response)
  if (response.status === 401 && !quiet) onLoginRequired()
  throw error
}

async function readError(response: Response): Promise<ApiError> {
  try {
    const body = (await response.json()) as { error?: { code?: unknown; message?: unknown } & Record<string, unknown> }
    const { code, message, ...more } = body.error ?? {}
    if (typeof code === 'string') {
      const text = typeof message === 'object' && message !== null ? (message as Names) : null
      const detail = typeof more.detail === 'string' ? more.detail : null
      return new ApiError(code, response.status, text, detail, more as Record<string, string | null>)
    }
  } catch {
    // Not JSON: a proxy's page, or nothing. The status says enough.
  }
  return new ApiError('unexpected', response.status)
}

function learnClock(date: string | null): void {
  const told = date === null ? NaN : Date.parse(date)
  if (Number.isNaN(told)) return
  const offset = told + 500 - Date.now() // the header has whole seconds, cut off
  // Within that second's uncertainty this machine's own clock is the better one.
  clockOffset = Math.abs(offset) < 1500 ? 0 : offset
}

const segment = encodeURIComponent

/** What is not JSON: a file, an SDP. */
async function plain(method: string, path: string, headers: Record<string, string>, body?: string): Promise<Response> {
  let response: Response
  try {
    response = await fetch(path, {
      method,
      headers: { ...headers, 'X-Duting': '1' },
      body,
      credentials: 'same-origin',
      cache: 'no-store',
      signal: AbortSignal.timeout(4 * TIMEOUT_MS),
    })
  } catch (error) {
    const timeout = error instanceof DOMException && error.name === 'TimeoutError'
    throw new ApiError(timeout ? 'timeout' : 'network', 0)
  }
  if (response.ok) return response
  const error = await readError(response)
  if (response.status === 401) onLoginRequired()
  throw error
}

export type Ears = 'both' | 'agent' | 'customer'

/** The steps that a person can ask for, as the addresses name them. */
export type AlertStep = 'acknowledge' | 'resolve' | 'false-alarm' | 'reopen' | 'assign' | 'comment' | 'accept-appeal' | 'reject-appeal'

export interface AlertWish {
  /** The alert as it was shown; nothing happens unless it still is so. */
  seen?: { state: AlertState; owner: string | null }
  /** Further alerts of the same card. */
  also?: string[]
  to?: string
  reason?: string
  text?: string
}

export const api = {
  session: () => request<{ user: User }>('GET', '/api/session', undefined, true),
  login: (username: string, password: string) =>
    request<{ user: User }>('POST', '/api/session', { username, password }, true),
  logout: () => request<void>('DELETE', '/api/session', undefined, true),
  floor: () => request<Floor>('GET', '/api/floor'),
  figures: () => request<Figures>('GET', '/api/floor/figures'),
  call: (id: string) => request<CallDetail>('GET', `/api/calls/${segment(id)}`),
  calls: (wanted: Record<string, string>, before: string | null, limit = 50) => {
    const query = new URLSearchParams({ ...wanted, limit: String(limit) })
    if (before !== null) query.set('before', before)
    return request<CallPage>('GET', `/api/calls?${query}`)
  },
  ways: () => request<{ oidc: string | null }>('GET', '/api/session/ways', undefined, true),
  people: () => request<{ people: Account[] }>('GET', '/api/people'),
  addPerson: (account: { username: string; name: string; role: string; teams?: string[]; password: string }) =>
    request<Account>('POST', '/api/people', account),
  changePerson: (username: string, change: { role?: string; teams?: string[]; disabled?: boolean }) =>
    request<Account>('PATCH', `/api/people/${segment(username)}`, change),
  setPassword: (username: string, password: string) =>
    request<void>('POST', `/api/people/${segment(username)}/password`, { password }),
  tokens: () => request<{ tokens: ApiToken[]; scopes: string[] }>('GET', '/api/tokens'),
  addToken: (token: { name: string; scopes: string[]; teams: string[]; days: number }) =>
    request<{ secret: string; token: ApiToken }>('POST', '/api/tokens', token),
  revokeToken: (name: string) => request<void>('DELETE', `/api/tokens/${segment(name)}`),
  audit: (filter: Record<string, string>) =>
    request<{ entries: AuditEntry[]; next: string | null }>('GET', `/api/audit?${new URLSearchParams(filter)}`),
  verifyAudit: () => request<AuditVerdict>('POST', '/api/audit/verify'),
  alertStep: (id: string, step: AlertStep, wish: AlertWish) =>
    request<FloorAlert>('POST', `/api/alerts/${segment(id)}/${step}`, wish),
  appeals: (appeal: Appeal, before: string | null, limit: number) => {
    const query = new URLSearchParams({ appeal, limit: String(limit), ...(before ? { before } : {}) })
    return request<{ alerts: FloorAlert[]; next: string | null }>('GET', `/api/alerts?${query}`)
  },
  alertHistory: (id: string) => request<AlertHistory>('GET', `/api/alerts/${segment(id)}/history`),
  assignees: () => request<{ people: User[] }>('GET', '/api/alerts/assignees'),
  peaks: (id: string, points: number) => request<Waveform>('GET', `/api/calls/${segment(id)}/peaks?points=${points}`),
  reveal: (id: string, utterance: string, reason: string) =>
    request<{ text: string; shown_s: number }>(
      'POST', `/api/calls/${segment(id)}/utterances/${segment(utterance)}/reveal`, { reason },
    ),
  note: (id: string, text: string, media_ms: number) =>
    request<Note>('POST', `/api/calls/${segment(id)}/notes`, { text, media_ms }),
  takeover: (id: string, reason: string) => request<Takeover>('POST', `/api/calls/${segment(id)}/takeover`, { reason }),
  whisper: (id: string, text: string) => request<Whisper>('POST', `/api/calls/${segment(id)}/whispers`, { text }),
  /** The archive, and the name that the server gives it. */
  evidence: async (id: string, alert: string): Promise<{ file: Blob; name: string }> => {
    const response = await plain('GET', `/api/calls/${segment(id)}/alerts/${segment(alert)}/evidence`, {})
    const name = /filename="([^"]+)"/.exec(response.headers.get('Content-Disposition') ?? '')?.[1]
    return { file: await response.blob(), name: name ?? 'duting-evidence.zip' }
  },
  /** WHEP: an offer for an answer, and the address of what begins with it. */
  listen: async (id: string, channel: Ears, offer: string): Promise<{ answer: string; address: string | null }> => {
    const headers = { 'Content-Type': 'application/sdp', Accept: 'application/sdp' }
    const response = await plain('POST', `/api/calls/${segment(id)}/listen?channel=${channel}`, headers, offer)
    return { answer: await response.text(), address: response.headers.get('Location') }
  },
  /** Also while the page is being left. */
  hangUp: (address: string) => {
    void fetch(address, { method: 'DELETE', headers: { 'X-Duting': '1' }, credentials: 'same-origin', keepalive: true }).catch(
      () => undefined,
    )
  },
  deskLogin: (username: string, password: string) =>
    request<{ user: User }>('POST', '/api/session', { username, password, framed: window.self !== window.top }, true),
  desk: () => request<Desk>('GET', '/api/desk'),
  review: (id: string) => request<Review>('GET', `/api/desk/calls/${segment(id)}`),
  answerHint: (call: string, hint: string, answer: Worth) =>
    request<HintAnswer>('POST', `/api/calls/${segment(call)}/hints/${segment(hint)}/answer`, { answer }),
  seenWhisper: (call: string, whisper: string, confirmed: boolean) =>
    request<Whisper>('POST', `/api/calls/${segment(call)}/whispers/${segment(whisper)}/seen`, { confirmed }),
  appeal: (id: string, reason: string) => request<FloorAlert>('POST', `/api/alerts/${segment(id)}/appeal`, { reason }),
  audioUrl: (id: string) => `/api/calls/${segment(id)}/audio`,
}
