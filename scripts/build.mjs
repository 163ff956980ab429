// npm run build: the native addon and the package's JavaScript.
import { addon, dist, packages } from './prepare.mjs'

await packages()
await addon()
await dist()
