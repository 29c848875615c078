// A TLS terminator on a free loopback port, as nginx would stand in front of the gateway, with a certificate of its own making.
//
//   node terminator.mjs
//
// prints one JSON line, {"origin": "https://localhost:…"}, then takes one line, where to forward to (http://127.0.0.1:…), on its
// standard input: the gateway has to know the origin before it can start. Exits when its standard input closes.
import { execFileSync } from 'node:child_process';
import { request as forward } from 'node:http';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';

const pem = execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
  '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', '-'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });

const lines = createInterface(process.stdin);
const upstream = new Promise((resolve) => { lines.once('line', (line) => resolve(new URL(line))); });
lines.on('close', () => process.exit(0));

const server = createServer({ key: pem, cert: pem }, async (request, response) => {
  const { hostname, port } = await upstream;
  const { method, url: path, headers } = request;
  // Host goes on as it came; what the client says about forwarding does not.
  const sent = { ...headers, 'x-forwarded-for': request.socket.remoteAddress, 'x-forwarded-proto': 'https' };
  const onward = forward({ hostname, port, method, path, headers: sent }, (answer) => {
    response.writeHead(answer.statusCode, answer.rawHeaders);
    answer.pipe(response);
  });
  onward.on('error', () => (response.headersSent ? response.destroy() : response.writeHead(502).end()));
  request.pipe(onward);
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ origin: `https://localhost:${server.address().port}` })));
