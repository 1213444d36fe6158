/**
 * The floor as the whole page shares it: loads it, keeps it current, tells who listens.
 * One per page. Views read `floor`, and never write it.
 */

import { ref, shallowReactive, shallowRef, type Ref, type ShallowRef } from 'vue'

import { api, ApiError, serverNow } from '@/api/http'
import type { Figures, Floor, FloorAlert, FloorCall, Health, Published, Text } from '@/api/types'
import { pause } from '@/lib/retry'
import { Batch } from './batch'
import { FloorMood, type FloorPoint } from './mood'
import { apply, channelKey, emptyFloor, loadFloor, type FloorState } from './reducer'
import { EventSocket, type ConnectionState, type SocketLike } from './socket'

/** What is known; nobody is told of a change in it but through what follows. */
const state: FloorState = emptyFloor()
const mood = new FloorMood()

/**
 * What the whole page looks at. A call in here changes when it begins, ends, is described anew or its alerts
 * change; what is said and felt in it changes several times a second, and is only told to who shows it (`callNow`).
 */
export const floor = shallowReactive({
  calls: shallowReactive(new Map<string, FloorCall>()),
  alerts: shallowReactive(new Map<string, FloorAlert>()),
  /** Grows with every change in `calls`. */
  version: 0,
  open: state.open,
  figures: null as Figures | null,
  health: null as Health | null,
})

/** One call as it is at this moment, with what is being said in it. */
export interface CallNow {
  call: FloorCall
  /** The last final utterances, oldest first. */
  recent: readonly Text[]
  /** What is not final yet. */
  partials: readonly Text[]
}

const CHANNELS = ['agent', 'customer', 'unknown'] as const

/** One for each call on the floor. */
const cells = new Map<string, ShallowRef<CallNow | null>>()

/** The call as it is now, and whenever it changes; `null` when the floor knows it no more. */
export function callNow(id: string): Readonly<ShallowRef<CallNow | null>> {
  let cell = cells.get(id)
  if (!cell) {
    cell = shallowRef(lookAt(id))
    if (cell.value) cells.set(id, cell)
    else floor.calls.has(id) // whoever looks is told when it begins
  }
  return cell
}

function lookAt(id: string): CallNow | null {
  const call = state.calls.get(id)
  if (!call) return null
  const partials: Text[] = []
  for (const role of CHANNELS) {
    const text = state.partials.get(channelKey(id, role))
    if (text) partials.push(text)
  }
  return { call, recent: state.recent.get(id) ?? [], partials }
}

/** What was said last in a call, to be searched. */
export function lastWords(call: FloorCall): string {
  return (state.recent.get(call.call_id) ?? []).map((text) => text.text).join(' ')
}

/** How the floor has felt lately; looked at now and then, it tells nobody of its changes. */
export function floorMood(): FloorPoint[] {
  return mood.points(serverNow())
}

export const connection: Ref<ConnectionState> = ref('connecting')
export const loading = ref(false)
export const loaded = ref(false)
export const loadError: Ref<ApiError | null> = ref(null)

type Listener = (event: Published) => void
const eventListeners = new Set<Listener>()
const resyncListeners = new Set<() => void>()
const raisedListeners = new Set<(alert: FloorAlert) => void>()
let onRefused: (reason: 'login' | 'role') => void = () => undefined

/** Every event of the socket, in order, also those the floor has seen. Returns how to stop. */
export function onEvent(listener: Listener, resync: () => void): () => void {
  eventListeners.add(listener)
  resyncListeners.add(resync)
  return () => {
    eventListeners.delete(listener)
    resyncListeners.delete(resync)
  }
}

/** Alerts that are new to a person who watches: not those of the first load, nor old ones caught up with. */
export function onRaised(listener: (alert: FloorAlert) => void): () => void {
  raisedListeners.add(listener)
  return () => raisedListeners.delete(listener)
}

// ── events come one by one, the page changes a few times a second ───────────────────────────────

/** An alert older than this was raised while the connection was cut; it is shown, but makes no sound. */
const FRESH_MS = 30_000

/** While somebody scrolls the wall what is said changes more rarely: the scrolling needs the time. */
const SCROLLED_MS = 300
let scrolledAt = -Infinity

export function looksElsewhere(): void {
  scrolledAt = performance.now()
}

const batch = new Batch<Published>(takeAll, {
  // A page that nobody sees gets no frames. Numbers of timers are kept apart by their sign.
  request: (act, inMs) => (inMs > 0 ? -window.setTimeout(act, inMs) : requestAnimationFrame(act)),
  cancel: (id) => (id < 0 ? window.clearTimeout(-id) : cancelAnimationFrame(id)),
  hidden: () => document.hidden,
  busy: () => performance.now() - scrolledAt < SCROLLED_MS,
  now: () => performance.now(),
})

function takeAll(events: Published[]): void {
  const calls = new Set<string>()
  const alerts = new Set<string>()
  for (const event of events) {
    const { applied, raised } = apply(state, event)
    if (applied) {
      if (event.call_id !== null) calls.add(event.call_id)
      if (event.alert) alerts.add(event.alert.id)
      if (event.emotion && event.emotion.role !== 'agent') mood.add(Date.parse(event.at), event.emotion.level)
      if (event.type === 'alert.updated') askForFigures(CHANGED_MS)
    }
    if (raised && serverNow() - Date.parse(event.at) < FRESH_MS) {
      for (const tell of raisedListeners) tell(raised)
    }
    for (const tell of eventListeners) tell(event)
  }
  show(calls, alerts)
}

/** Lets the page see what changed: each call at most once, whatever happened in it. */
function show(calls: Iterable<string>, alerts: Iterable<string>): void {
  for (const id of calls) {
    const call = state.calls.get(id)
    if (!call) continue
    const shown = floor.calls.get(id)
    if (!shown || isOther(shown, call)) {
      floor.calls.set(id, call)
      floor.version += 1
    }
    const cell = cells.get(id)
    if (cell) cell.value = lookAt(id)
  }
  for (const id of alerts) {
    const alert = state.alerts.get(id)
    if (alert) floor.alerts.set(id, alert)
  }
  if (floor.calls.size !== state.calls.size) {
    for (const id of floor.calls.keys()) {
      if (state.calls.has(id)) continue
      floor.calls.delete(id)
      floor.version += 1
      const cell = cells.get(id)
      if (cell) cell.value = null
      cells.delete(id)
    }
  }
  if (floor.alerts.size !== state.alerts.size) {
    for (const id of floor.alerts.keys()) if (!state.alerts.has(id)) floor.alerts.delete(id)
  }
  floor.open = state.open
  floor.health = state.health
}

/** Whether more has changed in a call than what is said and felt in it. */
function isOther(shown: FloorCall, call: FloorCall): boolean {
  return (
    shown.state !== call.state ||
    shown.alerts !== call.alerts ||
    shown.open !== call.open ||
    shown.agent !== call.agent ||
    shown.team !== call.team ||
    shown.queue !== call.queue ||
    shown.customer !== call.customer ||
    shown.customer_level !== call.customer_level ||
    shown.attributes !== call.attributes ||
    call.state === 'ended'
  )
}

/** All of it anew. */
function showAll(): void {
  floor.alerts.clear()
  for (const [id, cell] of cells) {
    cell.value = lookAt(id)
    if (!cell.value) cells.delete(id)
  }
  for (const [id, call] of state.calls) floor.calls.set(id, call)
  floor.version += 1
  show([], state.alerts.keys())
}

function loadAll(answer: Floor): void {
  loadFloor(state, answer)
  floor.figures = answer.figures
  mood.clear()
  for (const call of answer.calls) {
    const began = Date.parse(call.started_at)
    for (const point of call.moods) mood.add(began + point.media_ms, point.level)
  }
  showAll()
}

// ── figures that only the server knows ──────────────────────────────────────────────────────────

const FIGURES_MS = 15_000
/** After somebody took an alert in hand: soon, but once for all that happens meanwhile. */
const CHANGED_MS = 1500
let figuresAt = Infinity
let figuresTimer = 0

function askForFigures(inMs: number): void {
  const at = performance.now() + inMs
  if (!running || at >= figuresAt) return
  figuresAt = at
  window.clearTimeout(figuresTimer)
  figuresTimer = window.setTimeout(() => void fetchFigures(), inMs)
}

async function fetchFigures(): Promise<void> {
  figuresAt = Infinity
  const mine = generation
  try {
    if (!document.hidden) {
      const figures = await api.figures()
      if (mine === generation) floor.figures = figures
    }
  } catch {
    // The next one will come; until then the last ones stand.
  }
  askForFigures(FIGURES_MS)
}

// ── connection ──────────────────────────────────────────────────────────────────────────────────

function connect(cursor: number): SocketLike {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
  return new WebSocket(`${scheme}://${location.host}/api/events?cursor=${cursor}&together=1`) as unknown as SocketLike
}

const socket = new EventSocket(
  connect,
  {
    set: (act, ms) => window.setTimeout(act, ms),
    clear: (id) => window.clearTimeout(id),
    random: Math.random,
  },
  {
    cursor: () => {
      batch.flush()
      return state.cursor
    },
    event: (event) => batch.add(event),
    resync: () => void reload(),
    state: (state) => (connection.value = state),
    refused: (reason) => onRefused(reason),
  },
)

let running = false
let generation = 0

/** Loads the floor, then follows it. Safe to call again. */
export async function startFeed(refused: (reason: 'login' | 'role') => void): Promise<void> {
  onRefused = refused
  if (running) return
  running = true
  window.addEventListener('online', hurry)
  window.addEventListener('offline', dropped)
  document.addEventListener('visibilitychange', hurryWhenSeen)
  await load()
}

export function stopFeed(): void {
  running = false
  generation += 1
  socket.stop()
  window.removeEventListener('online', hurry)
  window.removeEventListener('offline', dropped)
  document.removeEventListener('visibilitychange', hurryWhenSeen)
  batch.clear()
  window.clearTimeout(figuresTimer)
  figuresAt = Infinity
  Object.assign(state, emptyFloor())
  mood.clear()
  floor.figures = null
  floor.calls.clear()
  showAll()
  loaded.value = false
  loadError.value = null
  connection.value = 'connecting'
}

/** First load; the socket starts from its cursor. Also what the "retry" of the error page does. */
export async function load(): Promise<void> {
  if (loading.value) return
  const mine = ++generation
  loading.value = true
  loadError.value = null
  try {
    const answer = await api.floor()
    if (mine !== generation) return
    loadAll(answer)
    loaded.value = true
    socket.start()
    askForFigures(FIGURES_MS)
  } catch (error) {
    if (mine !== generation) return
    loadError.value = error instanceof ApiError ? error : new ApiError('unexpected', 0)
    connection.value = 'offline'
  } finally {
    loading.value = false
  }
}

/**
 * The server cannot continue from our cursor: take the floor anew, and a new socket from its cursor.
 * When loading fails too, the socket is retried, and the server will ask for a resync again.
 */
async function reload(): Promise<void> {
  const mine = ++generation
  socket.stop()
  batch.clear()
  connection.value = 'reconnecting'
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await api.floor()
      if (mine !== generation || !running) return
      loadAll(answer)
      break
    } catch (error) {
      if (mine !== generation || !running) return
      if (error instanceof ApiError && error.status === 401) return
      await pause(attempt)
    }
  }
  for (const tell of resyncListeners) tell()
  socket.start()
}

export function hurry(): void {
  if (loadError.value) void load()
  else socket.hurry()
}

function dropped(): void {
  socket.drop()
}

function hurryWhenSeen(): void {
  if (document.visibilityState === 'visible') hurry()
}
