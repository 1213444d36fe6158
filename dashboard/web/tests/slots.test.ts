import { describe, expect, test } from 'vitest'

import { Slots } from '@/feed/slots'

describe('the elements of the calls in view', () => {
  test('stay with their calls, and pass from those that left to those that came', () => {
    const slots = new Slots()
    const before = slots.assign(['a', 'b', 'c'], null)
    expect(new Set(before).size).toBe(3)
    const after = slots.assign(['b', 'c', 'd'], null)
    expect(after).toEqual([before[1], before[2], before[0]])
    expect(slots.assign(['d', 'b'], null)).toEqual([after[2], after[0]])
  })

  test('are no more than are needed, and never one for two', () => {
    const slots = new Slots()
    const seen = new Set<string>()
    for (let top = 0; top < 400; top += 7) {
      const ids = Array.from({ length: 24 }, (_, at) => `call ${top + at}`)
      const given = slots.assign(ids, null)
      expect(new Set(given).size).toBe(ids.length)
      for (const slot of given) seen.add(slot)
    }
    expect(seen.size).toBe(24)
  })

  test('never bring the keyboard from one call to another', () => {
    const slots = new Slots()
    const [, b] = slots.assign(['a', 'b'], 'b')
    expect(slots.assign(['a', 'c'], 'b')).not.toContain(b)
  })
})
