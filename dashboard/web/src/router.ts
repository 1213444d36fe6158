/** The pages, and who is sent where. The server checks rights again on every request. */

import { createRouter, createWebHistory, type RouteLocationNormalized } from 'vue-router'

import { whenLoginRequired } from '@/api/http'
import LoginPage from '@/pages/LoginPage.vue'
import { expired, forget, knowSession, mayAdminister, mayWatch, user } from '@/session'

declare module 'vue-router' {
  interface RouteMeta {
    open?: boolean
    /** Key of the page's name, for the window's title. */
    title?: string
    /** Only for administrators. */
    admin?: boolean
    /** Too, but not one of their own pages. */
    keeper?: boolean
  }
}

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: '/', redirect: '/floor' },
    { path: '/login', name: 'login', component: LoginPage, meta: { open: true, title: 'login.title' } },
    { path: '/floor', name: 'floor', component: () => import('@/pages/FloorPage.vue'), meta: { title: 'nav.floor' } },
    { path: '/calls', name: 'calls', component: () => import('@/pages/CallsPage.vue'), meta: { title: 'nav.calls' } },
    { path: '/calls/:id', name: 'call', component: () => import('@/pages/CallPage.vue'), meta: { title: 'call.title' } },
    { path: '/appeals', name: 'appeals', component: () => import('@/pages/AppealsPage.vue'), meta: { title: 'appeals.title' } },
    { path: '/desk', name: 'desk', component: () => import('@/pages/DeskPage.vue'), meta: { title: 'desk.title' } },
    { path: '/rules', name: 'rules', component: () => import('@/pages/RulesPage.vue'), meta: { title: 'rules.title' } },
    { path: '/rules/test', name: 'rule-test', component: () => import('@/pages/RuleTestPage.vue'), meta: { title: 'rules.tabs.test' } },
    { path: '/rules/drafts', name: 'rule-drafts', component: () => import('@/pages/RuleDraftsPage.vue'), meta: { title: 'rules.tabs.drafts', keeper: true } },
    { path: '/rules/drafts/:id(\\d+)', name: 'rule-draft', component: () => import('@/pages/RuleDraftPage.vue'), meta: { title: 'rules.tabs.drafts', keeper: true } },
    { path: '/rules/history', name: 'rule-history', component: () => import('@/pages/RuleHistoryPage.vue'), meta: { title: 'rules.tabs.history' } },
    { path: '/admin', redirect: '/admin/people' },
    { path: '/admin/people', name: 'people', component: () => import('@/pages/PeoplePage.vue'), meta: { title: 'people.title', admin: true } },
    { path: '/admin/tokens', name: 'tokens', component: () => import('@/pages/TokensPage.vue'), meta: { title: 'tokens.title', admin: true } },
    { path: '/admin/audit', name: 'audit', component: () => import('@/pages/AuditPage.vue'), meta: { title: 'audit.title', admin: true } },
    { path: '/forbidden', name: 'forbidden', component: () => import('@/pages/ForbiddenPage.vue'), meta: { title: 'forbidden.title' } },
    { path: '/:rest(.*)*', name: 'lost', component: () => import('@/pages/LostPage.vue'), meta: { title: 'notFound.title' } },
  ],
})

/** Where to go after login: a path of ours, never another host. */
export function safeNext(value: unknown): string {
  return typeof value === 'string' && /^\/(?![/\\])/.test(value) ? value : '/floor'
}

router.beforeEach(async (to: RouteLocationNormalized) => {
  await knowSession()
  // The desk lets in at its own address: no other may stand in a softphone's frame.
  if (to.name === 'desk') return true
  if (to.meta.open) return user.value && to.name === 'login' ? safeNext(to.query.next) : true
  if (!user.value) return { name: 'login', query: to.fullPath === '/floor' ? {} : { next: to.fullPath } }
  if (!mayWatch.value) return { name: 'desk' }
  if ((to.meta.admin || to.meta.keeper) && !mayAdminister.value) return { name: 'forbidden', query: { page: to.path } }
  if (mayWatch.value && to.name === 'forbidden' && !to.query.page) return { name: 'floor' }
  return true
})

/** The session is over: back to the login page, and afterwards here again. */
export function toLogin(): void {
  const here = router.currentRoute.value
  if (here.name === 'login') return
  expired.value = user.value !== null
  forget()
  if (here.name === 'desk') return
  void router.replace({ name: 'login', query: here.fullPath === '/floor' ? {} : { next: here.fullPath } })
}

whenLoginRequired(toLogin)
