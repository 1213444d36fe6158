/** Which calls somebody looks for: in the address of the page, so that a list can be passed on. */

import type { Severity } from '@/api/types'
import { SEVERITIES } from '@/feed/order'

export const STATES = ['all', 'live', 'ended'] as const

export interface Search {
  state: (typeof STATES)[number]
  agent: string
  queue: string
  severity: Severity | ''
  /** Days here, `2026-03-01`, both included; empty: no bound. */
  from: string
  to: string
}

type Query = Readonly<Record<string, unknown>>
/** As many as the server takes. */
const MOST = 200

export function searchOf(query: Query): Search {
  const text = (name: string): string => {
    const value = query[name]
    return typeof value === 'string' ? value.trim().slice(0, MOST) : ''
  }
  const day = (name: string): string => (midnight(text(name)) === null ? '' : text(name))
  return {
    state: STATES.find((each) => each === query.state) ?? 'all',
    agent: text('agent'),
    queue: text('queue'),
    severity: SEVERITIES.find((each) => each === query.severity) ?? '',
    from: day('from'),
    to: day('to'),
  }
}

/** What stands in the address: only what says something. */
export function addressOf(search: Search): Record<string, string> {
  const given = Object.entries({ ...search, state: search.state === 'all' ? '' : search.state })
  return Object.fromEntries(given.filter(([, value]) => value !== ''))
}

/** What the server is asked. */
export function paramsOf({ state, agent, queue, severity, from, to }: Search): Record<string, string> {
  const params = {
    state,
    agent,
    queue,
    severity,
    since: midnight(from)?.toISOString() ?? '',
    until: midnight(to, 1)?.toISOString() ?? '',
  }
  return Object.fromEntries(Object.entries(params).filter(([, value]) => value !== ''))
}

/** Whether anything but the state is asked for. */
export function isNarrow({ agent, queue, severity, from, to }: Search): boolean {
  return [agent, queue, severity, from, to].some((value) => value !== '')
}

/** The begin of a day here, or of one `days` later; `null` for what is no day. */
function midnight(day: string, days = 0): Date | null {
  const parts = /^(\d{4})-(\d{2})-(\d{2})$/.exec(day)?.slice(1).map(Number)
  if (!parts) return null
  const [year = 0, month = 0, date = 0] = parts
  const found = new Date(year, month - 1, date)
  if (year < 1000 || found.getMonth() !== month - 1 || found.getDate() !== date) return null
  return new Date(year, month - 1, date + days)
}
