import { endpoint } from './endpoint.js';
import { follow } from './sharing.js';

/**
 * Follows the topics of a URL, as `{% livefeed_url %}` writes it, with the cursor and the viewer that are in it; without a
 * topic the server is taken for another kind than livefeed. livefeed.d.ts has the options, and what comes back: a member of
 * the connection that all share.
 */
export function connect(url, { cursor, onevent, onstate, types, ...options } = {}) {
  const at = new URL(endpoint(url));
  const [topics, [since], [viewer]] = ['topic', 'since', 'viewer'].map((name) => {
    const values = at.searchParams.getAll(name);
    at.searchParams.delete(name);
    return values;
  });
  let isHere = false; // among those who share the connection
  const become = (change) => {
    member.state = change.state;
    onstate?.(change);
  };
  const halt = (state) => () => {
    if (member.state === 'closed') return;
    if (isHere) member.leave();
    isHere = false;
    become({ state, reason: 'user', attempt: 0 });
  };
  const resume = () => {
    if (isHere || member.state === 'closed') return;
    isHere = true;
    follow({ viewer, ...options, src: at.href }, member);
  };
  const member = {
    topics,
    types,
    cursor: cursor ?? since ?? '',
    state: 'connecting',
    onevent: (event) => onevent?.(event),
    onstate: become,
    pause: halt('paused'),
    close: halt('closed'),
    resume,
  };
  resume();
  return member;
}
