// npm run demo: builds what it needs, then halfstep demo. Arguments after -- go to it.
import { addon, dist, packages } from './prepare.mjs'
import { run } from './shell.mjs'

await packages()
await addon()
await dist()
process.exitCode = (
  await run(process.execPath, ['ts/dist/cli.js', 'demo', ...process.argv.slice(2)])
).code
