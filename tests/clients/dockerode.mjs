// dockerode: one container from create to remove, its streams, exec, events, a network, a volume, a pull.
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { createRequire } from 'node:module';
const require = createRequire(process.env.NODE_PATH + '/');
const Docker = require('dockerode');

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace('unix://', '') });
const image = 'mooring-test/busybox';
const collect = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts).toString();
};

assert.equal((await docker.ping()).toString(), 'OK');
assert.equal((await docker.version()).Os, 'linux');
assert.equal((await docker.info()).OSType, 'linux');

const [ran, made] = await docker.run(image, ['sh', '-c', 'echo from run; exit 3'], new PassThrough());
assert.equal(ran.StatusCode, 3);
await made.remove();

const script = 'trap "exit 0" TERM; echo ready; while :; do sleep 1000 & wait $!; done';
const events = await docker.getEvents({ filters: { container: ['node'] } });
const container = await docker.createContainer({ Image: image, name: 'node', Cmd: ['sh', '-c', script], Labels: { a: 'b' }, OpenStdin: true });
await container.start();
const first = await new Promise((resolve) => events.once('data', resolve));
assert.equal(JSON.parse(first.toString().split('\n')[0]).Type, 'container');
events.destroy();

const follow = await container.logs({ follow: true, stdout: true, stderr: true });
const line = new PassThrough();
container.modem.demuxStream(follow, line, line);
assert.equal((await new Promise((resolve) => line.once('data', resolve))).toString(), 'ready\n');
follow.destroy();

const exec = await container.exec({ Cmd: ['sh', '-c', 'cat; echo err >&2; exit 5'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
const stream = await exec.start({ hijack: true, stdin: true });
const [out, err] = [new PassThrough(), new PassThrough()];
container.modem.demuxStream(stream, out, err);
stream.on('end', () => { out.end(); err.end(); });
stream.end('words');
assert.equal(await collect(out), 'words');
assert.equal(await collect(err), 'err\n');
assert.equal((await exec.inspect()).ExitCode, 5);

assert.equal((await docker.listContainers({ filters: { label: ['a=b'] } })).length, 1);
assert.equal((await container.inspect()).State.Running, true);
assert.ok((await container.stats({ stream: false })).memory_stats.usage > 0);
assert.ok((await container.top()).Processes.length > 0);
await container.stop({ t: 20 });
assert.equal((await container.wait()).StatusCode, 0);
await container.remove({ v: true });
await assert.rejects(container.inspect(), { statusCode: 404 });

const network = await docker.createNetwork({ Name: 'node-network' });
assert.equal((await network.inspect()).Name, 'node-network');
await network.remove();
const volume = await docker.createVolume({ Name: 'node-volume' });
assert.equal((volume.name ?? volume.Name), 'node-volume');
await docker.getVolume('node-volume').remove();

const pulled = await docker.pull(process.env.REFERENCE);
const told = await new Promise((resolve, reject) => docker.modem.followProgress(pulled, (e, all) => (e ? reject(e) : resolve(all))));
assert.match(told.at(-1).status, /^Status: /);
await assert.rejects(docker.pull(process.env.REFERENCE.replace('busybox', 'nosuch')), { statusCode: 404 });
await docker.getImage(process.env.REFERENCE).remove();
console.log('dockerode: all good');
