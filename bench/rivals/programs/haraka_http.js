'use strict';
// Haraka's HTTP door: POST a message, 202 when Haraka has it on disk. Everything goes to one relay.
const cluster = require('node:cluster');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const handlebars = require('handlebars');
const MailComposer = require('nodemailer/lib/mail-composer');

const outbound = require('./outbound');

const { BENCH_PORT, BENCH_WORKERS, BENCH_RELAY_PORT, BENCH_TEMPLATES, BENCH_CA_FILE, BENCH_LOGIN, BENCH_SECRET } = process.env;
const template = (name) => handlebars.compile(fs.readFileSync(path.join(BENCH_TEMPLATES, `receipt.${name}.hbs`), 'utf8'));
const SENDER = 'hello@lantern.example';

exports.register = function () {
  if (cluster.isPrimary && Number(BENCH_WORKERS) > 1) return; // the workers listen
  const [subject, html, text] = ['subject', 'html', 'txt'].map(template);
  const compose = (asked) =>
    new MailComposer({
      from: `Lantern <${SENDER}>`,
      to: asked.to,
      subject: subject(asked),
      html: html(asked),
      text: text(asked),
      headers: { 'X-Bench-Id': asked.id },
    }).compile();

  const answer = (response, status, said) => {
    const body = JSON.stringify({ status: said });
    response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }).end(body);
  };

  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      const asked = JSON.parse(Buffer.concat(chunks));
      compose(asked).build((error, message) => {
        if (error) return answer(response, 500, error.message);
        return outbound.send_email(SENDER, asked.to, message.toString('latin1'), (code, said) =>
          answer(response, code === OK ? 202 : 503, String(said)),
        );
      });
    });
  });
  server.keepAliveTimeout = 75000;
  server.listen(Number(BENCH_PORT), '127.0.0.1');
};

exports.hook_get_mx = function (next) {
  const login = BENCH_CA_FILE ? { auth_user: BENCH_LOGIN, auth_pass: BENCH_SECRET } : {};
  next(OK, { priority: 0, exchange: '127.0.0.1', port: Number(BENCH_RELAY_PORT), ...login });
};
