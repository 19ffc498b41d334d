// nodemailer's pool: sends prebuilt bytes (`raw` and `envelope`) and prints {"seconds": ...}.
// Arguments: port, count, connections, tls (none | starttls), user, password, file with the message.
const fs = require('node:fs');
const nodemailer = require('nodemailer');

const [port, count, connections, tls, user, pass, file] = process.argv.slice(2);
const raw = fs.readFileSync(file);

const transport = nodemailer.createTransport({
  host: '127.0.0.1',
  port: Number(port),
  pool: true,
  maxConnections: Number(connections),
  maxMessages: Infinity,
  secure: tls === 'implicit',
  ignoreTLS: tls === 'none',
  requireTLS: tls === 'starttls',
  tls: { rejectUnauthorized: false },
  auth: user ? { user, pass } : undefined,
});

const send = () => transport.sendMail({ raw, envelope: { from: 'zouchengzhuo@163.com', to: ['405966530@qq.com'] } });

(async () => {
  await Promise.all(Array.from({ length: Number(connections) * 2 }, send)); // the connections are open
  const began = process.hrtime.bigint();
  await Promise.all(Array.from({ length: Number(count) }, send));
  process.stdout.write(`${JSON.stringify({ seconds: Number(process.hrtime.bigint() - began) / 1e9 })}\n`);
  transport.close();
})();
