/** One clock for the whole page: the server's time, ticking once a second while somebody looks. */

import { onScopeDispose, ref, type Ref } from 'vue'

import { serverNow } from '@/api/http'

const now = ref(serverNow())
let users = 0
let timer = 0

export function useNow(): Readonly<Ref<number>> {
  users += 1
  if (users === 1) {
    now.value = serverNow()
    timer = window.setInterval(() => (now.value = serverNow()), 1000)
  }
  onScopeDispose(() => {
    users -= 1
    if (users === 0) window.clearInterval(timer)
  })
  return now
}
