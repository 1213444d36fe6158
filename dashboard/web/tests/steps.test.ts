import { expect, test } from 'vitest'

import type { Step, StepState } from '@/api/types'
import { secondsLeft, SIGNS, timeLeft, wordOf } from '@/lib/steps'

const step = (state: StepState, due_ms: number | null = null): Step => ({
  id: 'greeting', name: { zh: '问候', en: 'Greeting' }, state, due_ms,
})

test('every state has a sign of its own', () => {
  const signs = Object.values(SIGNS)
  expect(new Set(signs).size).toBe(signs.length)
})

test('the time that is left counts down to nothing and not below', () => {
  expect(secondsLeft(step('due', 10_000), 1_000)).toBe(9)
  expect(secondsLeft(step('due', 10_000), 9_001)).toBe(1)
  expect(secondsLeft(step('due', 10_000), 30_000)).toBe(0)
})

test('only what is due has time left', () => {
  expect(secondsLeft(step('done', 10_000), 1_000)).toBeNull()
  expect(secondsLeft(step('due'), 1_000)).toBeNull()
})

test('past its deadline a step is being checked until the server has judged it', () => {
  expect(wordOf(step('due', 10_000), 3)).toBe('due')
  expect(wordOf(step('due', 10_000), 0)).toBe('checking')
  expect(wordOf(step('missed', 10_000), null)).toBe('missed')
})

test('minutes are written as minutes', () => {
  expect([timeLeft(9), timeLeft(65), timeLeft(120)]).toEqual(['9 s', '1:05', '2:00'])
})
