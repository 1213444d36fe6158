/**
 * The socket of events: connects, listens for the heartbeat, comes back by cursor.
 *
 * It has no state of the floor: whoever owns it says from which cursor to go on. Timers and the
 * socket itself are passed in, so that tests need neither a network nor a clock.
 */

import type { Frame, Published } from '../api/types'

export type ConnectionState = 'connecting' | 'online' | 'reconnecting' | 'offline'

export interface SocketLike {
  onopen: ((event: unknown) => void) | null
  onmessage: ((event: { data: unknown }) => void) | null
  onclose: ((event: { code: number }) => void) | null
  onerror: ((event: unknown) => void) | null
  close(code?: number): void
}

export interface Timers {
  set(act: () => void, ms: number): number
  clear(id: number): void
  random(): number
}

export interface FeedHandlers {
  cursor(): number
  event(event: Published): void
  /** The cursor is too old or unknown: load everything again. The socket stays open. */
  resync(): void
  state(state: ConnectionState, retryInMs: number | null): void
  /** The server will not have us: not logged in (4401) or wrong role (4403). No retry. */
  refused(reason: 'login' | 'role'): void
}

const FIRST_RETRY_MS = 500
const LONGEST_RETRY_MS = 15_000
/** After so many failures in a row the page says "offline" rather than "reconnecting". */
const PATIENCE = 4
const DEFAULT_HEARTBEAT_S = 15

/** Exponential with full jitter, so that two hundred dashboards do not come back at the same moment. */
export function retryDelay(attempt: number, random: number): number {
  const ceiling = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt)
  return Math.round(ceiling / 2 + (random * ceiling) / 2)
}

export class EventSocket {
  private socket: SocketLike | null = null
  private failures = 0
  private silence: number | null = null
  private retry: number | null = null
  private heartbeatMs = DEFAULT_HEARTBEAT_S * 1000
  private stopped = true

  constructor(
    private readonly connect: (cursor: number) => SocketLike,
    private readonly timers: Timers,
    private readonly handlers: FeedHandlers,
  ) {}

  start(): void {
    if (!this.stopped) return
    this.stopped = false
    this.failures = 0
    this.open()
  }

  stop(): void {
    this.stopped = true
    this.dropTimers()
    const socket = this.socket
    this.socket = null
    socket?.close(1000)
  }

  /** Try at once: the machine says that it has a network again, or the page is looked at again. */
  hurry(): void {
    if (this.stopped || this.socket !== null) return
    this.dropTimers()
    this.open()
  }

  private open(): void {
    this.handlers.state(this.failures === 0 ? 'connecting' : this.failures > PATIENCE ? 'offline' : 'reconnecting', null)
    let socket: SocketLike
    try {
      socket = this.connect(this.handlers.cursor())
    } catch {
      this.lost()
      return
    }
    this.socket = socket
    this.listenForSilence()
    socket.onopen = () => this.listenForSilence()
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket || typeof data !== 'string') return
      this.listenForSilence()
      // What waited together came together, each on a line of its own.
      for (const line of data.split('\n')) if (socket === this.socket) this.receive(line)
    }
    socket.onerror = () => undefined // a close always follows
    socket.onclose = ({ code }) => {
      if (socket !== this.socket) return
      this.socket = null
      if (code === 4401 || code === 4403) {
        this.stopped = true
        this.dropTimers()
        this.handlers.state('offline', null)
        this.handlers.refused(code === 4401 ? 'login' : 'role')
        return
      }
      this.lost()
    }
  }

  private receive(data: string): void {
    let frame: Frame
    try {
      frame = JSON.parse(data) as Frame
    } catch {
      return // a frame that is not JSON says nothing; the next one may
    }
    switch (frame.type) {
      case 'hello':
        this.failures = 0
        this.heartbeatMs = (frame.heartbeat_s ?? DEFAULT_HEARTBEAT_S) * 1000
        this.listenForSilence()
        this.handlers.state('online', null)
        return
      case 'heartbeat':
        return
      case 'resync':
        this.handlers.resync()
        return
      default:
        this.handlers.event(frame)
    }
  }

  /** The machine says that its network is gone: no need to wait for the silence. */
  drop(): void {
    if (this.socket === null) return
    const socket = this.socket
    this.socket = null
    socket.close(4000)
    this.lost()
  }

  /** A connection that is silent for two heartbeats and a bit is dead, whatever TCP believes. */
  private listenForSilence(): void {
    if (this.silence !== null) this.timers.clear(this.silence)
    this.silence = this.timers.set(() => this.drop(), this.heartbeatMs * 2 + 2000)
  }

  private lost(): void {
    this.dropTimers()
    if (this.stopped) return
    this.failures += 1
    const delay = retryDelay(this.failures - 1, this.timers.random())
    this.handlers.state(this.failures > PATIENCE ? 'offline' : 'reconnecting', delay)
    this.retry = this.timers.set(() => this.open(), delay)
  }

  private dropTimers(): void {
    if (this.silence !== null) this.timers.clear(this.silence)
    if (this.retry !== null) this.timers.clear(this.retry)
    this.silence = null
    this.retry = null
  }
}
