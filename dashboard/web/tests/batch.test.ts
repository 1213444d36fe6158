import { beforeEach, describe, expect, test } from 'vitest'

import { Batch } from '@/feed/batch'
import { FloorMood } from '@/feed/mood'

class Frames {
  waiting = new Map<number, () => void>()
  isHidden = false
  isBusy = false
  time = 0
  private id = 0
  asked: number[] = []
  request(act: () => void, inMs: number): number {
    this.asked.push(inMs)
    this.waiting.set(++this.id, act)
    return this.id
  }
  cancel(id: number): void {
    this.waiting.delete(id)
  }
  hidden(): boolean {
    return this.isHidden
  }
  busy(): boolean {
    return this.isBusy
  }
  now(): number {
    return this.time
  }
  next(): void {
    const acts = [...this.waiting.values()]
    this.waiting.clear()
    for (const act of acts) act()
  }
}

describe('events of one frame', () => {
  let frames: Frames
  let taken: number[][]
  let batch: Batch<number>
  beforeEach(() => {
    frames = new Frames()
    taken = []
    batch = new Batch((events) => taken.push(events), frames)
  })

  test('are taken together, in order, once', () => {
    for (const event of [1, 2, 3]) batch.add(event)
    expect([taken, frames.waiting.size]).toEqual([[], 1])
    frames.next()
    batch.add(4)
    frames.next()
    frames.next()
    expect(taken).toEqual([[1, 2, 3], [4]])
  })

  test('are shown with the next frame after a silence, and a few times a second from then on', () => {
    frames.time = 1000
    batch.add(1)
    frames.next()
    frames.time = 1016
    batch.add(2)
    frames.time = 1100
    frames.next()
    frames.time = 1300
    batch.add(3)
    frames.next()
    frames.isBusy = true
    batch.add(4)
    expect([frames.asked, taken]).toEqual([[0, 84, 0, 300], [[1], [2], [3]]])
  })

  test('are taken at once when somebody needs them, and not again with the frame', () => {
    batch.add(1)
    batch.flush()
    frames.next()
    expect([taken, frames.waiting.size]).toEqual([[[1]], 0])
  })

  test('are let go when all is loaded anew', () => {
    batch.add(1)
    batch.clear()
    frames.next()
    expect(taken).toEqual([])
  })

  test('do not wait without bound for a frame that does not come', () => {
    for (let event = 0; event < 9000; event += 1) batch.add(event)
    expect(taken.map((events) => events.length)).toEqual([4000, 4000])
  })

  test('are taken as they come on a page that nobody sees, a few times a second', () => {
    frames.isHidden = true
    frames.time = 1000
    batch.add(1)
    batch.add(2)
    frames.time = 1250
    batch.add(3)
    expect(taken).toEqual([[1], [2, 3]])
  })
})

describe('the mood of the floor', () => {
  const AT = 1_000 * 30_000

  test('is the mean of half a minute, where enough was heard', () => {
    const mood = new FloorMood()
    for (const level of [1, 2, 6]) mood.add(AT + level, level)
    for (const level of [9, 9]) mood.add(AT + 30_000, level)
    mood.add(NaN, 5)
    expect(mood.points(AT + 60_000)).toEqual([{ at: AT, level: 3, count: 3 }])
  })

  test('is forgotten after twenty minutes', () => {
    const mood = new FloorMood()
    for (let step = 0; step < 500; step += 1) for (const level of [1, 2, 3]) mood.add(AT + step * 30_000, level)
    expect(mood.points(AT + 499 * 30_000)).toHaveLength(40)
    expect(mood.points(AT + 9999 * 30_000)).toEqual([])
  })
})
