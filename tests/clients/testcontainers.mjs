// testcontainers: a redis with a published port, waited for by log, by port and by health; a network with an alias; exec.
import assert from 'node:assert/strict';
import net from 'node:net';
import { createRequire } from 'node:module';
const require = createRequire(process.env.NODE_PATH + '/');
const { GenericContainer, Network, Wait } = require('testcontainers');

const ask = (host, port, text) => new Promise((resolve, reject) => {
  const socket = net.connect(port, host, () => socket.write(text));
  socket.once('data', (data) => { resolve(data.toString()); socket.destroy(); });
  socket.once('error', reject);
});

// The library's own sockets do not keep the program alive.
const alive = setInterval(() => {}, 1000);
const network = await new Network().start();
const redis = await new GenericContainer('mooring-test/debian')
  .withCommand(['redis-server', '--save', '', '--bind', '0.0.0.0', '--protected-mode', 'no'])
  .withExposedPorts(6379)
  .withNetwork(network)
  .withNetworkAliases('store')
  .withEnvironment({ A: 'b' })
  .withHealthCheck({ test: ['CMD', 'redis-cli', 'ping'], interval: 1000, timeout: 10000, retries: 60, startPeriod: 0 })
  .withWaitStrategy(Wait.forAll([Wait.forLogMessage(/Ready to accept connections/), Wait.forListeningPorts(), Wait.forHealthCheck()]))
  .withStartupTimeout(120000)
  .start();
assert.equal(await ask(redis.getHost(), redis.getMappedPort(6379), 'PING\r\n'), '+PONG\r\n');
const { output, exitCode } = await redis.exec(['sh', '-c', 'echo $A']);
assert.deepEqual([output.trim(), exitCode], ['b', 0]);

const other = await new GenericContainer('mooring-test/debian')
  .withCommand(['redis-cli', '-h', 'store', 'ping'])
  .withNetwork(network)
  .withWaitStrategy(Wait.forOneShotStartup())
  .start();
const logs = await other.logs();
assert.match((await new Promise((resolve) => logs.once('data', resolve))).toString(), /PONG/);
await other.stop();
await redis.restart();
await redis.stop();
await network.stop();
await assert.rejects(new GenericContainer('mooring-test/debian').withCommand(['false']).withWaitStrategy(Wait.forOneShotStartup()).start());
clearInterval(alive);
console.log('testcontainers: all good');
