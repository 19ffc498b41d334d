// Each moment by the reader's clock, in digits that need no language. UTC stays in its title, and in its text without a script.
const two = (number) => String(number).padStart(2, "0");
function zone(ahead) {
  if (!ahead) return "UTC";
  return `${ahead < 0 ? "-" : "+"}${two(Math.floor(Math.abs(ahead) / 60))}:${two(Math.abs(ahead) % 60)}`;
}
function local(moment) {
  const day = [moment.getFullYear(), two(moment.getMonth() + 1), two(moment.getDate())].join("-");
  const time = [moment.getHours(), moment.getMinutes(), moment.getSeconds()].map(two).join(":");
  return `${day} ${time} ${zone(-moment.getTimezoneOffset())}`;
}
for (const each of document.querySelectorAll("time")) each.textContent = local(new Date(each.dateTime));
