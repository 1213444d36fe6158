/**
 * The floor as the whole page shares it: loads it, keeps it current, tells who listens.
 * One per page. Views read `floor`, and never write it.
 */

import { ref, shallowReactive, type Ref } from 'vue'

import { api, ApiError, serverNow } from '@/api/http'
import type { CallView, FloorAlert, Health, Published, Text } from '@/api/types'
import { apply, loadFloor, type FloorState } from './reducer'
import { EventSocket, type ConnectionState, type SocketLike } from './socket'

export const floor: FloorState = shallowReactive<FloorState>({
  cursor: 0,
  calls: shallowReactive(new Map<string, CallView>()),
  alerts: shallowReactive(new Map<string, FloorAlert>()),
  partials: shallowReactive(new Map<string, Text>()),
  recent: shallowReactive(new Map<string, Text[]>()),
  finals: new Map<string, number>(),
  health: null as Health | null,
})

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

// ── events come one by one, the page changes at most every FLUSH_MS ─────────────────────────────

const FLUSH_MS = 40
/** An alert older than this was raised while the connection was cut; it is shown, but makes no sound. */
const FRESH_MS = 30_000
let waiting: Published[] = []
let flushTimer: number | null = null
let flushedAt = -Infinity

function receive(event: Published): void {
  waiting.push(event)
  if (flushTimer !== null) return
  const since = performance.now() - flushedAt
  if (since >= FLUSH_MS) flush()
  else flushTimer = window.setTimeout(flush, FLUSH_MS - since)
}

function flush(): void {
  if (flushTimer !== null) window.clearTimeout(flushTimer)
  flushTimer = null
  flushedAt = performance.now()
  const events = waiting
  waiting = []
  for (const event of events) {
    const { raised } = apply(floor, event)
    if (raised && serverNow() - Date.parse(event.at) < FRESH_MS) {
      for (const tell of raisedListeners) tell(raised)
    }
    for (const tell of eventListeners) tell(event)
  }
}

// ── connection ──────────────────────────────────────────────────────────────────────────────────

function connect(cursor: number): SocketLike {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
  return new WebSocket(`${scheme}://${location.host}/api/events?cursor=${cursor}`) as unknown as SocketLike
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
      flush()
      return floor.cursor
    },
    event: receive,
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
  waiting = []
  floor.calls.clear()
  floor.alerts.clear()
  floor.partials.clear()
  floor.recent.clear()
  floor.finals.clear()
  floor.cursor = 0
  floor.health = null
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
    loadFloor(floor, answer)
    loaded.value = true
    socket.start()
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
  waiting = []
  connection.value = 'reconnecting'
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await api.floor()
      if (mine !== generation || !running) return
      loadFloor(floor, answer)
      break
    } catch (error) {
      if (mine !== generation || !running) return
      if (error instanceof ApiError && error.status === 401) return
      await new Promise((wake) => window.setTimeout(wake, Math.min(15_000, 1000 * 2 ** attempt) * (0.5 + Math.random() / 2)))
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
