import { fileURLToPath, URL } from 'node:url'

import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

const server = process.env.DUTING_SERVER ?? 'http://127.0.0.1:8420'

export default defineConfig({
  plugins: [vue()],
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  define: { __VUE_OPTIONS_API__: false, __VUE_I18N_LEGACY_API__: false },
  build: {
    outDir: '../static',
    emptyOutDir: true,
    target: 'es2022',
    // Nothing is inlined as data: URL, so the page lives under a strict Content-Security-Policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 400,
  },
  server: {
    // The Origin must equal the Host for the server to accept a socket, so the Host is not rewritten.
    proxy: { '/api': { target: server, ws: true, changeOrigin: false } },
  },
})
