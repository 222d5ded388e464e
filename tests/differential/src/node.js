// Node's own server, recording: for each connection, once it is closed, a line with the requests whose bodies came to their end.
// Ends when its standard input does.
'use strict';
const { createHash } = require('node:crypto');
const { createServer } = require('node:http');

const seen = new Map();

const server = createServer((request, response) => {
  const hash = createHash('sha256');
  let length = 0;
  request.on('data', (chunk) => { hash.update(chunk); length += chunk.length; });
  request.on('end', () => {
    if (!request.complete) return;
    seen.get(request.socket).push({ method: request.method, target: request.url, length, digest: hash.digest('hex') });
    response.end('recorded');
  });
});
server.httpAllowHalfOpen = true;

// A tunnel isn't made, as nowhere here.
server.on('connect', (request, socket) => {
  const digest = createHash('sha256').digest('hex');
  seen.get(socket).push({ method: request.method, target: request.url, length: 0, digest });
  socket.end('HTTP/1.1 405 Method Not Allowed\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
});

server.on('connection', (socket) => {
  const port = socket.remotePort;
  seen.set(socket, []);
  socket.on('close', () => {
    console.log(JSON.stringify({ port, requests: seen.get(socket) }));
    seen.delete(socket);
  });
});

server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ listening: server.address().port })));
process.stdin.resume().on('end', () => process.exit());
