import { expect, test } from 'vitest'

import { EventSocket, retryDelay, type ConnectionState, type SocketLike, type Timers } from '@/feed/socket'

class FakeSocket implements SocketLike {
  onopen: SocketLike['onopen'] = null
  onmessage: SocketLike['onmessage'] = null
  onclose: SocketLike['onclose'] = null
  onerror: SocketLike['onerror'] = null
  closed: number | null = null
  constructor(readonly cursor: number) {}
  close(code = 1000): void {
    this.closed = code
  }
  say(frame: object): void {
    this.onmessage?.({ data: JSON.stringify(frame) })
  }
}

/** Timers that only move when told to. */
class FakeTimers implements Timers {
  now = 0
  private next = 1
  private readonly waiting = new Map<number, { at: number; act: () => void }>()
  set(act: () => void, ms: number): number {
    this.waiting.set(this.next, { at: this.now + ms, act })
    return this.next++
  }
  clear(id: number): void {
    this.waiting.delete(id)
  }
  random(): number {
    return 1
  }
  pass(ms: number): void {
    const until = this.now + ms
    for (;;) {
      const due = [...this.waiting].filter(([, each]) => each.at <= until).sort((a, b) => a[1].at - b[1].at)[0]
      if (!due) break
      this.waiting.delete(due[0])
      this.now = due[1].at
      due[1].act()
    }
    this.now = until
  }
}

function setUp() {
  const sockets: FakeSocket[] = []
  const states: ConnectionState[] = []
  const seen: string[] = []
  let cursor = 7
  const timers = new FakeTimers()
  const socket = new EventSocket(
    (from) => {
      sockets.push(new FakeSocket(from))
      return sockets.at(-1)!
    },
    timers,
    {
      cursor: () => cursor,
      event: (event) => {
        cursor = event.cursor
        seen.push(event.type)
      },
      resync: () => seen.push('resync'),
      state: (state) => states.push(state),
      refused: (reason) => seen.push(reason),
    },
  )
  socket.start()
  return { sockets, states, seen, timers, socket }
}

test('it is online once the server said hello, and comes back by the cursor it had reached', () => {
  const { sockets, states, timers } = setUp()
  expect(sockets[0]?.cursor).toBe(7)
  sockets[0]?.say({ type: 'hello', cursor: 7, heartbeat_s: 15 })
  expect(states.at(-1)).toBe('online')
  sockets[0]?.say({ type: 'call.ended', cursor: 8 })
  sockets[0]?.onclose?.({ code: 1006 })
  expect(states.at(-1)).toBe('reconnecting')
  timers.pass(500)
  expect(sockets[1]?.cursor).toBe(8)
})

test('what came together is told one by one, and nothing of it after the socket was let go', () => {
  const { sockets, seen, socket } = setUp()
  const lines = [8, 9].map((cursor) => JSON.stringify({ type: 'call.ended', cursor }))
  sockets[0]?.onmessage?.({ data: lines.join('\n') })
  expect(seen).toEqual(['call.ended', 'call.ended'])
  socket.stop()
  sockets[0]?.onmessage?.({ data: lines.join('\n') })
  expect(seen).toEqual(['call.ended', 'call.ended'])
})

test('two missed heartbeats end a connection that looks alive', () => {
  const { sockets, timers } = setUp()
  sockets[0]?.say({ type: 'hello', cursor: 7, heartbeat_s: 15 })
  timers.pass(20_000)
  sockets[0]?.say({ type: 'heartbeat' })
  timers.pass(31_000)
  expect(sockets.length).toBe(1)
  timers.pass(1_500)
  expect(sockets[0]?.closed).toBe(4000)
  expect(sockets.length).toBe(2)
})

test('a network that is gone is told at once', () => {
  const { sockets, states, timers, socket } = setUp()
  sockets[0]?.say({ type: 'hello', cursor: 7 })
  socket.drop()
  expect(states.at(-1)).toBe('reconnecting')
  socket.hurry()
  timers.pass(20_000)
  expect(sockets.length).toBe(2)
})

test('a server that stays away is called offline, and is still tried', () => {
  const { sockets, states, timers } = setUp()
  for (let attempt = 0; attempt < 6; attempt += 1) {
    sockets.at(-1)?.onclose?.({ code: 1006 })
    timers.pass(15_000)
  }
  expect(states.at(-1)).toBe('offline')
  expect(sockets.length).toBe(7)
})

test('not logged in: says so and does not come back', () => {
  const { sockets, seen, timers } = setUp()
  sockets[0]?.onclose?.({ code: 4401 })
  timers.pass(60_000)
  expect(seen).toEqual(['login'])
  expect(sockets.length).toBe(1)
})

test('a frame that is not JSON is passed over', () => {
  const { sockets, seen } = setUp()
  sockets[0]?.onmessage?.({ data: '{' })
  sockets[0]?.say({ type: 'resync' })
  expect(seen).toEqual(['resync'])
})

test('the wait before a retry doubles, has jitter and a ceiling', () => {
  expect([0, 1, 2, 9].map((attempt) => retryDelay(attempt, 1))).toEqual([500, 1000, 2000, 15_000])
  expect(retryDelay(2, 0)).toBe(1000)
})
