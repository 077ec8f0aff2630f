// The page's start: it is drawn at once; then comes the ticket, what the guest has, and its best console.

import './style.css';
import { Page } from './page';

new Page(document).enter();
