import { afterEach, expect, test, vi } from 'vitest'

import { Ear, type EarState } from '@/lib/whep'

afterEach(() => vi.unstubAllGlobals())

test('a browser that makes no connection says that it failed, and can be asked again', async () => {
  vi.stubGlobal('RTCPeerConnection', function () {
    throw new DOMException('there are too many', 'UnknownError')
  })
  const told: [EarState, string | undefined][] = []
  const ear = new Ear((state, error) => told.push([state, error?.code]), () => undefined)
  await ear.start('c', 'both')
  await ear.start('c', 'both')
  const once = [['connecting', undefined], ['failed', 'no_sound']]
  expect(told).toEqual([...once, ...once])
})
