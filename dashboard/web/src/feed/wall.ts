/**
 * The wall of calls: what is chosen (and how the address says it), which calls in which groups and order, where
 * each of them stands, which are in view, and where an arrow key leads. Pure: no page, no clock.
 */

import type { FloorCall, Severity } from '../api/types'
import { byRisk, byStart, SEVERITIES } from './order'

export const GROUPINGS = ['none', 'team', 'queue'] as const
export const SORTS = ['risk', 'duration', 'agent'] as const
export const DENSITIES = ['cards', 'rows', 'tiles'] as const
export type Grouping = (typeof GROUPINGS)[number]
export type Sort = (typeof SORTS)[number]
export type Density = (typeof DENSITIES)[number]

export interface Choice {
  group: Grouping
  sort: Sort
  /** `null`: by how many calls there are. */
  density: Density | null
  team: string | null
  queue: string | null
  agent: string | null
  /** Calls with an open alert of one of these; none chosen: all calls. */
  severities: readonly Severity[]
  text: string
  /** Groups that are folded. */
  closed: readonly string[]
}

/** What stands in for the name of a group whose calls name no team or no queue. */
export const NO_NAME = ''
const LONGEST = 100
const MOST_CLOSED = 50

// ── the address ─────────────────────────────────────────────────────────────────────────────────

export type Query = Record<string, string | null | (string | null)[] | undefined>

/** Anybody may have written an address: what is not known counts as not said. */
export function readChoice(query: Query): Choice {
  const all = (name: string): string[] =>
    [query[name]].flat().filter((each): each is string => typeof each === 'string' && each.length <= LONGEST)
  const one = (name: string): string | null => all(name)[0] ?? null
  const named = (name: string): string | null => one(name) || null
  return {
    group: GROUPINGS.find((each) => each === one('group')) ?? 'none',
    sort: SORTS.find((each) => each === one('sort')) ?? 'risk',
    density: DENSITIES.find((each) => each === one('view')) ?? null,
    team: named('team'),
    queue: named('queue'),
    agent: named('agent'),
    severities: SEVERITIES.filter((each) => all('severity').includes(each)),
    text: one('q') ?? '',
    closed: all('closed').slice(0, MOST_CLOSED),
  }
}

/** The inverse of `readChoice`; what is usual is left out. */
export function writeChoice(choice: Choice): Record<string, string | string[]> {
  const query: Record<string, string | string[]> = {}
  if (choice.group !== 'none') query.group = choice.group
  if (choice.sort !== 'risk') query.sort = choice.sort
  if (choice.density !== null) query.view = choice.density
  if (choice.team !== null) query.team = choice.team
  if (choice.queue !== null) query.queue = choice.queue
  if (choice.agent !== null) query.agent = choice.agent
  if (choice.severities.length > 0) query.severity = [...choice.severities]
  if (choice.text !== '') query.q = choice.text
  if (choice.closed.length > 0 && choice.group !== 'none') query.closed = [...choice.closed]
  return query
}

/** Whether some calls are left out. */
export function isFiltered(choice: Choice): boolean {
  const { team, queue, agent, severities, text } = choice
  return team !== null || queue !== null || agent !== null || severities.length > 0 || text.trim() !== ''
}

// ── which calls, in which order ─────────────────────────────────────────────────────────────────

/** The team as the telephony names it, else that of the agent's account. */
export function teamOf(call: FloorCall): string {
  return call.team ?? NO_NAME
}

export interface Group {
  /** Of the team or the queue; one group without a heading when nothing is grouped. */
  name: string
  ids: readonly string[]
}

/** `words`: what was said last in a call, to be searched. */
export function matches(call: FloorCall, choice: Choice, words: (call: FloorCall) => string): boolean {
  if (choice.team !== null && teamOf(call) !== choice.team) return false
  if (choice.queue !== null && call.queue !== choice.queue) return false
  if (choice.agent !== null && call.agent !== choice.agent) return false
  if (choice.severities.length > 0 && !choice.severities.some((each) => call.open[each] > 0)) return false
  const sought = choice.text.trim().toLocaleLowerCase()
  if (sought === '') return true
  const known = [call.agent, call.queue, teamOf(call), call.customer, call.customer_level, call.call_id, words(call)]
  return known.some((each) => each?.toLocaleLowerCase().includes(sought))
}

export function arrange(
  calls: Iterable<FloorCall>,
  choice: Choice,
  words: (call: FloorCall) => string,
  language: string,
): Group[] {
  const { compare } = new Intl.Collator(language, { numeric: true })
  const order: Record<Sort, (a: FloorCall, b: FloorCall) => number> = {
    risk: byRisk,
    duration: byStart,
    agent: (a, b) => compare(a.agent ?? '\uffff', b.agent ?? '\uffff') || byStart(a, b),
  }
  const chosen = [...calls].filter((call) => call.state === 'live' && matches(call, choice, words))
  chosen.sort(order[choice.sort])
  if (choice.group === 'none') return chosen.length > 0 ? [{ name: NO_NAME, ids: chosen.map((call) => call.call_id) }] : []
  const groups = new Map<string, string[]>()
  for (const call of chosen) {
    const name = choice.group === 'team' ? teamOf(call) : (call.queue ?? NO_NAME)
    const ids = groups.get(name)
    if (ids) ids.push(call.call_id)
    else groups.set(name, [call.call_id])
  }
  // By name: groups that changed places with the risk in them would be found by nobody.
  return [...groups]
    .map(([name, ids]) => ({ name, ids }))
    .sort((a, b) => Number(a.name === NO_NAME) - Number(b.name === NO_NAME) || compare(a.name, b.name))
}

/**
 * What to show while places are kept: calls stay where they are, also those that ended or no longer match, and
 * new ones come at the end of their group, new groups at the end of all.
 */
export function keepPlaces(shown: readonly Group[], wanted: readonly Group[], known: (id: string) => boolean): Group[] {
  const placed = new Set(shown.flatMap((group) => group.ids))
  const fresh = new Map(wanted.map((group) => [group.name, group.ids.filter((id) => !placed.has(id))]))
  const kept = shown
    .map(({ name, ids }) => ({ name, ids: [...ids.filter(known), ...(fresh.get(name) ?? [])] }))
    .filter(({ ids }) => ids.length > 0)
  const names = new Set(shown.map((group) => group.name))
  const added = wanted.filter((group) => !names.has(group.name)).map(({ name }) => ({ name, ids: fresh.get(name) ?? [] }))
  return [...kept, ...added.filter(({ ids }) => ids.length > 0)]
}

/**
 * How many calls would change places among the others: all but the longest run that is in order already, and those
 * that would leave.
 */
export function moved(shown: readonly Group[], wanted: readonly Group[]): number {
  const place = new Map(wanted.flatMap((group) => group.ids).map((id, at) => [id, at]))
  const ids = shown.flatMap((group) => group.ids)
  /** By length of a run less one: the smallest place with which one of that length ends. */
  const ends: number[] = []
  for (const id of ids) {
    const at = place.get(id)
    if (at === undefined) continue
    let low = 0
    let high = ends.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((ends[middle] ?? 0) < at) low = middle + 1
      else high = middle
    }
    ends[low] = at
  }
  return ids.length - ends.length
}

export function sameGroups(a: readonly Group[], b: readonly Group[]): boolean {
  return (
    a.length === b.length &&
    a.every((group, at) => {
      const other = b[at]
      return (
        other !== undefined &&
        group.name === other.name &&
        group.ids.length === other.ids.length &&
        group.ids.every((id, place) => id === other.ids[place])
      )
    })
  )
}

// ── where they stand ────────────────────────────────────────────────────────────────────────────

export interface Measures {
  columns: number
  /** Of a call, and the distance to the next; pixels. */
  height: number
  gap: number
  /** Of a group's heading. */
  heading: number
}

/** A heading, or calls that stand side by side. */
export interface Line {
  top: number
  height: number
  group: string
  heading: boolean
  ids: readonly string[]
}

export interface Layout {
  lines: readonly Line[]
  height: number
}

export function layout(groups: readonly Group[], grouped: boolean, closed: ReadonlySet<string>, by: Measures): Layout {
  const lines: Line[] = []
  let top = 0
  for (const { name, ids } of groups) {
    if (grouped) {
      lines.push({ top, height: by.heading, group: name, heading: true, ids: [] })
      top += by.heading
      if (closed.has(name)) continue
    }
    for (let at = 0; at < ids.length; at += by.columns) {
      lines.push({ top, height: by.height, group: name, heading: false, ids: ids.slice(at, at + by.columns) })
      top += by.height + by.gap
    }
  }
  return { lines, height: top }
}

/** How many columns of at least `least` pixels fit beside each other. */
export function columnsOf(width: number, least: number, gap: number): number {
  return Math.max(1, Math.floor((width + gap) / (least + gap)))
}

/** The lines between two heights, and the one with `also` (which has the keyboard) wherever it stands. */
export function inView({ lines }: Layout, from: number, to: number, also: string | null): Line[] {
  let low = 0
  let high = lines.length
  while (low < high) {
    const middle = (low + high) >> 1
    const line = lines[middle]
    if (line && line.top + line.height < from) low = middle + 1
    else high = middle
  }
  const seen: Line[] = []
  for (let at = low; at < lines.length; at += 1) {
    const line = lines[at]
    if (!line || line.top > to) break
    seen.push(line)
  }
  if (also !== null && !seen.some((line) => line.ids.includes(also))) {
    const line = lines.find((each) => each.ids.includes(also))
    if (line) seen.push(line)
  }
  return seen
}

export type Way = 'ArrowLeft' | 'ArrowRight' | 'ArrowUp' | 'ArrowDown' | 'Home' | 'End'

/** Where a key leads from a call: beside, to the same column of the next line, to the first or last of all. */
export function step({ lines }: Layout, from: string | null, way: Way): string | null {
  const rows = lines.filter((line) => line.ids.length > 0)
  const flat = rows.flatMap((line) => line.ids)
  if (flat.length === 0) return null
  const at = from === null ? -1 : flat.indexOf(from)
  if (at < 0 || way === 'Home') return flat[0] ?? null
  if (way === 'End') return flat.at(-1) ?? null
  if (way === 'ArrowLeft') return flat[Math.max(0, at - 1)] ?? null
  if (way === 'ArrowRight') return flat[Math.min(flat.length - 1, at + 1)] ?? null
  const row = rows.findIndex((line) => line.ids.includes(flat[at] ?? ''))
  const column = rows[row]?.ids.indexOf(flat[at] ?? '') ?? 0
  const next = rows[row + (way === 'ArrowDown' ? 1 : -1)]
  return next ? (next.ids[Math.min(column, next.ids.length - 1)] ?? null) : from
}

/** Where to scroll so that a call is in view; `null`: it is, or it stands nowhere. */
export function scrollTo({ lines }: Layout, id: string, top: number, height: number): number | null {
  const line = lines.find((each) => each.ids.includes(id))
  if (!line) return null
  if (line.top < top) return Math.max(0, line.top - 40)
  if (line.top + line.height > top + height) return line.top + line.height - height + 8
  return null
}
