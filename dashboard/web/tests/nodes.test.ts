import { expect, test } from 'vitest'

import type { Progress, Step } from '@/api/types'
import { nodesOf } from '@/lib/nodes'

const list = (script: string, ...steps: Step[]): Progress => ({ call_id: 'c1', script, name: {}, media_ms: 0, steps })
const step = (id: string, more: Partial<Step>): Step => ({ id, name: {}, state: 'done', ...more })

test('what was done stands where it was done, what was missed where its time was over', () => {
  const nodes = nodesOf([
    list('s', step('b', { state: 'missed', due_ms: 35_000 }), step('a', { done_ms: 1500, due_ms: 9000 })),
    list('rules', step('c', { state: 'too_late', done_ms: 0 })),
  ])
  expect(nodes.map(({ key, ms, state }) => [key, ms, state])).toEqual([
    ['rules c', 0, 'too_late'],
    ['s a', 1500, 'done'],
    ['s b', 35_000, 'missed'],
  ])
})

test('what is still to come has no place', () => {
  expect(nodesOf([list('s', step('a', { state: 'due', due_ms: 9000 }), step('b', { state: 'waiting' }), step('c', { state: 'missed' }))])).toEqual([])
})
