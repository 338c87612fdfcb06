/*
 * outlook.h: what a cluster trains while parts of it fail, what it draws and what that costs.
 */
#ifndef HOST_PROJECT_OUTLOOK_H
#define HOST_PROJECT_OUTLOOK_H

#include "host/project/question.h"

/* Adds to the document: "sizes", an entry for each number of GPUs, with one job of all of them and
 * several jobs; "goodput", "energy" and "cost" of the question's plan in the first of them;
 * "assumed", on what these rest. P10 and P90 are of assumptions and step drawn at random, from a
 * fixed seed; a figure that has no end (no token ever) is null. */
enum cm_status cm_outlook_write(const struct cm_question *q, json_t *document);

/* That on the terminal. */
void cm_outlook_text(const json_t *document, struct cm_str *out);

#endif
