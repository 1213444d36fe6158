import { expect, test } from 'vitest'

import { addressOf, isNarrow, paramsOf, searchOf } from '@/lib/search'

const NOTHING = { state: 'all', agent: '', queue: '', severity: '', from: '', to: '' }

test('what makes no sense in an address is left out', () => {
  expect(searchOf({})).toEqual(NOTHING)
  expect(searchOf({ state: 'gone', agent: ['8001'], severity: 'bad', from: 'today', to: '2026-02-30' })).toEqual(NOTHING)
})

test('an address comes back as it was', () => {
  const query = { state: 'ended', agent: '8001', queue: '理财', severity: 'critical', from: '2026-03-01', to: '2026-03-02' }
  expect(addressOf(searchOf(query))).toEqual(query)
  expect(addressOf(searchOf({ state: 'all' }))).toEqual({})
})

test('days are those of here, the last one included', () => {
  const params = paramsOf(searchOf({ from: '2026-02-28', to: '2026-02-28' }))
  expect(new Date(params.since ?? '')).toEqual(new Date(2026, 1, 28))
  expect(new Date(params.until ?? '')).toEqual(new Date(2026, 2, 1))
  expect(paramsOf(searchOf({}))).toEqual({ state: 'all' })
})

test('a state alone is no search', () => {
  expect(isNarrow(searchOf({ state: 'live' }))).toBe(false)
  expect(isNarrow(searchOf({ queue: '理财' }))).toBe(true)
})
