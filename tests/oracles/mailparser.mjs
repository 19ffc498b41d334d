// npm mailparser as a service: a line of base64 in, a line of JSON out, until stdin ends.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { simpleParser } from "mailparser";

const { Libmime } = createRequire(import.meta.resolve("mailparser"))("libmime");
const libmime = new Libmime();
const options = { keepCidLinks: true, skipHtmlToText: true, skipTextToHtml: true, skipTextLinks: true };

const mailboxes = (field) => (field ? field.value.map(({ name, address }) => [name, address ?? ""]) : []);

// mailparser decodes the fields it knows; the others with the library it decodes those with
const header = ({ line }) => {
  const { key, value } = libmime.decodeHeader(Buffer.from(line, "binary").toString());
  return [key.toLowerCase(), libmime.decodeWords(value)];
};

// mailparser trims octets before it decodes them, and takes the last octet of "à" (C3 A0) for a space: RFC 6532 only
const subject = (mail) =>
  mail.subject?.endsWith("\ufffd") ? mail.headerLines.map(header).find(([key]) => key === "subject")[1] : mail.subject;

const file = ({ filename, content, headers, contentDisposition, cid }) => ({
  filename: filename ?? null,
  type: headers.get("content-type").value, // attachment.contentType is guessed from the name for octet-stream
  method: headers.get("content-type").params.method ?? null,
  disposition: contentDisposition ?? null,
  content_id: cid ?? null,
  sha256: createHash("sha256").update(content).digest("hex"),
  text: contentDisposition ? null : content.toString(),
});

for await (const line of createInterface({ input: process.stdin })) {
  const mail = await simpleParser(Buffer.from(line, "base64"), options);
  const reading = {
    subject: subject(mail) ?? "",
    mailboxes: Object.fromEntries(
      ["from", "sender", "to", "cc", "reply-to"].map((name) => [name, mailboxes(mail.headers.get(name))]),
    ),
    headers: mail.headerLines.map(header),
    text: mail.text ?? null,
    html: mail.html || null,
    leaves: mail.attachments.map(file),
  };
  process.stdout.write(JSON.stringify(reading) + "\n");
}
