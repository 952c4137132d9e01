locals {
  disposable = var.environment != "prod"
  prefix     = "${var.name}-${var.account_id}-${var.region}"
}

# Artifacts: data sets, code, releases, training output.
resource "aws_s3_bucket" "artifacts" {
  # checkov:skip=CKV_AWS_144:A lost region is rebuilt from the data sets' sources; a second copy would double the cost of storage.
  # checkov:skip=CKV2_AWS_62:Nothing consumes bucket events; a release is chosen by its key in a Terraform variable.
  bucket        = "${local.prefix}-artifacts"
  force_destroy = local.disposable
}

resource "aws_s3_bucket_versioning" "artifacts" {
  bucket = aws_s3_bucket.artifacts.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "artifacts" {
  bucket = aws_s3_bucket.artifacts.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.this.arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "artifacts" {
  bucket = aws_s3_bucket.artifacts.id

  rule {
    id     = "leftovers"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    noncurrent_version_expiration {
      noncurrent_days = 90
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "checkpoints"
    status = "Enabled"

    filter {
      prefix = "trainer/checkpoints/"
    }

    expiration {
      days = 7
    }
  }

  # Noncurrent versions exist, and can expire, only once versioning is on.
  depends_on = [aws_s3_bucket_versioning.artifacts]
}

resource "aws_s3_bucket_logging" "artifacts" {
  bucket        = aws_s3_bucket.artifacts.id
  target_bucket = aws_s3_bucket.logs.id
  target_prefix = local.log_prefix

  # S3 checks at once that it may deliver.
  depends_on = [aws_s3_bucket_policy.logs]
}

resource "aws_s3_bucket_policy" "artifacts" {
  bucket = aws_s3_bucket.artifacts.id

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [merge(local.tls_only, { Resource = [local.artifacts_arn, "${local.artifacts_arn}/*"] })]
  })

  depends_on = [aws_s3_bucket_public_access_block.artifacts]
}

resource "aws_s3_bucket_public_access_block" "artifacts" {
  bucket = aws_s3_bucket.artifacts.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "artifacts" {
  bucket = aws_s3_bucket.artifacts.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# Access logs of the artifact bucket.
resource "aws_s3_bucket" "logs" {
  # checkov:skip=CKV_AWS_18:A log bucket that logs its own access would feed on itself without end.
  # checkov:skip=CKV_AWS_144:Access logs are evidence of one region's bucket and are not needed in another.
  # checkov:skip=CKV_AWS_145:S3 does not deliver access logs to a bucket whose default encryption is SSE-KMS; SSE-S3 is set.
  # checkov:skip=CKV2_AWS_62:Nothing consumes events of the access-log bucket; its objects are read when somebody investigates.
  bucket        = "${local.prefix}-logs"
  force_destroy = local.disposable
}

resource "aws_s3_bucket_versioning" "logs" {
  bucket = aws_s3_bucket.logs.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    id     = "access-logs"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    expiration {
      days = 365
    }

    noncurrent_version_expiration {
      noncurrent_days = 30
    }
  }

  depends_on = [aws_s3_bucket_versioning.logs]
}

resource "aws_s3_bucket_policy" "logs" {
  bucket = aws_s3_bucket.logs.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      merge(local.tls_only, { Resource = [local.logs_arn, "${local.logs_arn}/*"] }),
      {
        Sid       = "AccessLogDelivery"
        Effect    = "Allow"
        Principal = { Service = "logging.s3.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${local.logs_arn}/${local.log_prefix}*"
        Condition = {
          ArnEquals    = { "aws:SourceArn" = local.artifacts_arn }
          StringEquals = { "aws:SourceAccount" = var.account_id }
        }
      },
    ]
  })

  depends_on = [aws_s3_bucket_public_access_block.logs]
}

resource "aws_s3_bucket_public_access_block" "logs" {
  bucket = aws_s3_bucket.logs.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

locals {
  # Built from names, so that every policy is known, and can be scanned, before the buckets exist.
  artifacts_arn = "arn:${var.partition}:s3:::${local.prefix}-artifacts"
  logs_arn      = "arn:${var.partition}:s3:::${local.prefix}-logs"
  log_prefix    = "artifacts/"

  tls_only = {
    Sid       = "TlsOnly"
    Effect    = "Deny"
    Principal = { AWS = "*" }
    Action    = "s3:*"
    Condition = { Bool = { "aws:SecureTransport" = "false" } }
  }
}
