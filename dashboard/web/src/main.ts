import { createApp } from 'vue'

import './element'
import './styles/tokens.css'
import './styles/base.css'
import './styles/listing.css'

import App from './App.vue'
import { i18n, language, setLanguage } from './i18n'
import { router } from './router'
import { startSound } from './sound'
import { startTheme } from './theme'

startTheme()
setLanguage(language.value)
startSound()
createApp(App).use(i18n).use(router).mount('#app')
