// A user whom an LDAP directory alone knows, in a browser. Runs after all others: tests/host/ldap.sh has given the host
// its directory.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Person, closeBrowser } from './browser.mjs';
import { Configured, Guest, sh, until } from './host.mjs';

let guest, other, configured;

before(async () => {
    configured = new Configured('[access]\nrights = [{ groups = ["operators"], guests = ["ldap-*"] }]\n');
    guest = new Guest('ldap-mine', '--vnc --pty').start();
    other = new Guest('not-mine', '--pty').start();
    await guest.waitForShell();
});

after(async () => {
    guest?.remove();
    other?.remove();
    configured?.remove();
    await closeBrowser();
});

/** Somebody who has typed lena's password into a guest's page. */
async function lenaAt(which) {
    const person = await Person.with();
    await person.open(`${await which.origin()}/#serial/0`);
    await person.sees('login');
    await person.logIn('lena', 'lena\'s secret');
    return person;
}

test('a user of the directory has the serial port of an unwired guest, virsh console respects that, and other guests are closed', async () => {
    assert.equal(sh('grep -c ^lena: /etc/passwd || true'), '0');
    assert.match(sh(`virsh dumpxml ${guest.uuid}`), /<serial type='pty'/);
    const lena = await lenaAt(guest);
    await lena.sees('connected', 'serial/0');
    await lena.runs('from-the-directory');
    assert.match(sh(`script -qec 'virsh console ${guest.uuid}' /dev/null </dev/null 2>&1 || true`), /locked by lock file|in use|Active console session exists/i);
    await lena.shot('directory');
    await lena.close();

    const kept = await lenaAt(other);
    await until('lena to be told', async () => (await kept.text()).includes('lena has no right to this guest'));
    await kept.close();
});
