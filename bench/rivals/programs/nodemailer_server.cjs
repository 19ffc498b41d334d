// A mail service in memory: node:http, Handlebars, nodemailer's pool. Answers 202 as soon as the message is in the pool.
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const handlebars = require('handlebars');
const nodemailer = require('nodemailer');

const { BENCH_PORT, BENCH_RELAY_PORT, BENCH_CONNECTIONS, BENCH_TEMPLATES, BENCH_CA_FILE, BENCH_LOGIN, BENCH_SECRET } = process.env;
const template = (name) => handlebars.compile(fs.readFileSync(path.join(BENCH_TEMPLATES, `receipt.${name}.hbs`), 'utf8'));
const [subject, html, text] = ['subject', 'html', 'txt'].map(template);

const transport = nodemailer.createTransport({
  host: '127.0.0.1',
  port: Number(BENCH_RELAY_PORT),
  pool: true,
  maxConnections: Number(BENCH_CONNECTIONS),
  maxMessages: Infinity,
  ignoreTLS: !BENCH_CA_FILE,
  requireTLS: Boolean(BENCH_CA_FILE),
  tls: BENCH_CA_FILE ? { ca: fs.readFileSync(BENCH_CA_FILE) } : undefined,
  auth: BENCH_CA_FILE ? { user: BENCH_LOGIN, pass: BENCH_SECRET } : undefined,
});

function send(asked) {
  transport
    .sendMail({
      from: 'Lantern <hello@lantern.example>',
      to: asked.to,
      subject: subject(asked),
      html: html(asked),
      text: text(asked),
      headers: { 'X-Bench-Id': asked.id },
    })
    .catch((error) => console.error(asked.id, error.message));
}

const answer = JSON.stringify({ status: 'queued' });
const head = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(answer) };

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    send(JSON.parse(Buffer.concat(chunks)));
    response.writeHead(202, head).end(answer);
  });
});
server.keepAliveTimeout = 75000;
server.listen(Number(BENCH_PORT), '127.0.0.1');
