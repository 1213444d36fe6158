/** Ears in a running call, over WebRTC (WHEP): one at a time, and none when nobody is left to hear. */

import { api, ApiError, type Ears } from '@/api/http'

export type EarState = 'idle' | 'connecting' | 'on' | 'unsteady' | 'over' | 'failed'

export class Ear {
  private peer: RTCPeerConnection | null = null
  private address: string | null = null
  /** Grows with every start and stop: what belongs to an earlier one is let go of. */
  private turn = 0

  /** `onState`: with the error where it `failed`; `onSound`: what is to be played, `null` for nothing. */
  constructor(
    private readonly onState: (state: EarState, error: ApiError | null) => void,
    private readonly onSound: (sound: MediaStream | null) => void,
  ) {}

  async start(call: string, channel: Ears): Promise<void> {
    this.hangUp()
    const mine = ++this.turn
    this.onState('connecting', null)
    try {
      const peer = (this.peer = new RTCPeerConnection())
      this.follow(peer, mine)
      await peer.setLocalDescription(await peer.createOffer())
      const { answer, address } = await api.listen(call, channel, peer.localDescription?.sdp ?? '')
      if (mine !== this.turn) {
        if (address) api.hangUp(address)
        peer.close()
        return
      }
      this.address = address
      await peer.setRemoteDescription({ type: 'answer', sdp: answer })
    } catch (caught) {
      // Else it is the browser that has no WebRTC, or refuses this one.
      this.end(mine, 'failed', caught instanceof ApiError ? caught : new ApiError('no_sound', 0))
    }
  }

  private follow(peer: RTCPeerConnection, mine: number): void {
    peer.addTransceiver('audio', { direction: 'recvonly' })
    peer.ontrack = ({ streams, track }) => {
      if (mine === this.turn) this.onSound(streams[0] ?? new MediaStream([track]))
      track.onended = () => this.end(mine, 'over')
    }
    peer.onconnectionstatechange = () => {
      if (mine !== this.turn) return
      if (peer.connectionState === 'connected') this.onState('on', null)
      else if (peer.connectionState === 'disconnected') this.onState('unsteady', null)
      else if (peer.connectionState === 'closed') this.end(mine, 'over')
      else if (peer.connectionState === 'failed') this.end(mine, 'failed', new ApiError('no_sound', 0))
    }
  }

  stop(): void {
    this.turn += 1
    this.hangUp()
    this.onState('idle', null)
  }

  private end(turn: number, state: 'over' | 'failed', error: ApiError | null = null): void {
    if (turn !== this.turn) return
    this.turn += 1
    this.hangUp()
    this.onState(state, error)
  }

  private hangUp(): void {
    if (this.address) api.hangUp(this.address)
    this.address = null
    this.peer?.close()
    this.peer = null
    this.onSound(null)
  }
}
