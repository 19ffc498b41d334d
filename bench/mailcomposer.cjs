// nodemailer's MailComposer on the same messages. Standard input: one JSON object a line, {"mail": {...}, "count": n};
// attachments' contents are base64. Standard output: one line for each, {"microseconds": per message, "octets": of one}.
const readline = require('node:readline');
const MailComposer = require('nodemailer/lib/mail-composer');

function build(mail) {
  return new Promise((resolve, reject) => {
    new MailComposer(mail).compile().build((error, message) => (error ? reject(error) : resolve(message)));
  });
}

async function run({ mail, count }) {
  for (const each of mail.attachments || []) each.content = Buffer.from(each.content, 'base64');
  let octets = 0;
  for (let warm = 0; warm < Math.min(count, 200); warm += 1) octets = (await build(mail)).length;
  const began = process.hrtime.bigint();
  for (let at = 0; at < count; at += 1) await build(mail);
  return { microseconds: Number(process.hrtime.bigint() - began) / 1000 / count, octets };
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await run(JSON.parse(line)))}\n`);
  }
})();
