/**
 * Notifications of the operating system, for those whose window lies behind others. They say which rule and
 * which agent, not what was said: a notification may stand on a screen that others see.
 */

import { reactive, ref } from 'vue'

import type { FloorAlert, Severity } from '@/api/types'
import { recall, remember } from '@/lib/memory'
import { severitiesOf } from '@/sound'

export const available = typeof Notification !== 'undefined'
/** What the browser allows: `default` until the person was asked. */
export const permission = ref<NotificationPermission>(available ? Notification.permission : 'denied')
/** Severities that notify, in this browser; none until somebody wants it. */
export const notified = reactive(new Set<Severity>(severitiesOf(recall('notified'))))

export async function toggleNotified(severity: Severity): Promise<void> {
  if (notified.delete(severity)) {
    keep()
    return
  }
  if (available && permission.value !== 'granted') permission.value = await Notification.requestPermission()
  if (permission.value !== 'granted') return
  notified.add(severity)
  keep()
}

function keep(): void {
  remember('notified', [...notified].join(' '))
}

/** One notification per call: a newer one takes the place of the older. */
export function notify(alert: FloorAlert, title: string, body: string, open: () => void): void {
  if (!available || permission.value !== 'granted' || !notified.has(alert.severity)) return
  if (document.visibilityState === 'visible' && document.hasFocus()) return
  const shown = new Notification(title, { body, tag: alert.call_id, silent: true })
  shown.onclick = () => {
    window.focus()
    open()
    shown.close()
  }
}
