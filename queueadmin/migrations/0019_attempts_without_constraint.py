"""Attempts name their job without a constraint in the database; the model says why."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queueadmin", "0018_triage")]

    operations = [
        migrations.AlterField(
            "attempt",
            "job",
            models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="attempt_set",
                to="queueadmin.job",
                verbose_name="job",
            ),
        ),
    ]
