// Verifies DKIM by mailauth. Standard input: one JSON object a line, {"message": base64, "records": {name: text}};
// standard output: one line for each, a list of {domain, selector, algorithm, result, comment}.
const readline = require('node:readline');
const { authenticate } = require('mailauth');

async function verify({ message, records }) {
  const resolver = async (name, type) => {
    const text = type === 'TXT' ? records[name] : undefined;
    if (text === undefined) {
      const error = new Error(`no ${type} record for ${name}`);
      error.code = 'ENOTFOUND';
      throw error;
    }
    return [[text]];
  };
  const { dkim } = await authenticate(Buffer.from(message, 'base64'), { resolver, disableArc: true, disableDmarc: true, disableBimi: true });
  return dkim.results.map((each) => ({
    domain: each.signingDomain,
    selector: each.selector,
    algorithm: each.algo,
    result: each.status.result,
    comment: each.status.comment,
  }));
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let answer;
    try {
      answer = await verify(JSON.parse(line));
    } catch (error) {
      answer = { error: String(error) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
})();
