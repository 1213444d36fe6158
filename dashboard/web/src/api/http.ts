/** Requests to the server. Every failure becomes an `ApiError` that knows what to tell the person. */

import type { CallDetail, CallPage, Figures, Floor, Names, User } from './types'

export class ApiError extends Error {
  constructor(
    /** The server's word for it, or `network`, `timeout`, `unexpected`. */
    readonly code: string,
    /** HTTP status; 0 when no answer came. */
    readonly status: number,
    /** What the server says about it, by language. */
    readonly text: Names | null = null,
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

async function request<T>(method: string, path: string, body?: unknown, quiet = false): Promise<T> {
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
    const body = (await response.json()) as { error?: { code?: unknown; message?: unknown } }
    const code = body.error?.code
    const message = body.error?.message
    if (typeof code === 'string') {
      const text = typeof message === 'object' && message !== null ? (message as Names) : null
      return new ApiError(code, response.status, text)
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

export const api = {
  session: () => request<{ user: User }>('GET', '/api/session', undefined, true),
  login: (username: string, password: string) =>
    request<{ user: User }>('POST', '/api/session', { username, password }, true),
  logout: () => request<void>('DELETE', '/api/session', undefined, true),
  floor: () => request<Floor>('GET', '/api/floor'),
  figures: () => request<Figures>('GET', '/api/floor/figures'),
  call: (id: string) => request<CallDetail>('GET', `/api/calls/${segment(id)}`),
  calls: (state: 'live' | 'ended' | 'all', before: string | null, limit = 50) => {
    const query = new URLSearchParams({ state, limit: String(limit) })
    if (before !== null) query.set('before', before)
    return request<CallPage>('GET', `/api/calls?${query}`)
  },
  audioUrl: (id: string) => `/api/calls/${segment(id)}/audio`,
}
