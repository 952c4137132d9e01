# The notebook: runs the submission script, starts jobs, publishes releases, stops itself when idle.

resource "aws_iam_role" "notebook" {
  name                 = "${var.name}-notebook"
  description          = "SageMaker notebook: submits training jobs"
  assume_role_policy   = local.trust["sagemaker"]
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "notebook" {
  name = "notebook"
  role = aws_iam_role.notebook.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.sagemaker_network_interfaces, [
      {
        Sid    = "ReadArtifacts"
        Effect = "Allow"
        Action = "s3:GetObject"
        Resource = [
          "${local.bucket_arn}/code/*",
          "${local.bucket_arn}/datasets/*",
          "${local.bucket_arn}/features/*",
          "${local.bucket_arn}/releases/*",
          "${local.bucket_arn}/training/*",
        ]
      },
      {
        Sid       = "ListArtifacts"
        Effect    = "Allow"
        Action    = "s3:ListBucket"
        Resource  = local.bucket_arn
        Condition = { StringLike = { "s3:prefix" = ["datasets/*", "features/*", "releases/*", "training/*"] } }
      },
      {
        Sid      = "WriteDatasetsFeaturesAndReleases"
        Effect   = "Allow"
        Action   = ["s3:AbortMultipartUpload", "s3:PutObject"]
        Resource = ["${local.bucket_arn}/datasets/*", "${local.bucket_arn}/features/*", "${local.bucket_arn}/releases/*"]
      },
      {
        Sid      = "RunTrainingJobs"
        Effect   = "Allow"
        Action   = ["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob"]
        Resource = "${local.sagemaker_arn}:training-job/${var.name}-*"
      },
      {
        Sid    = "RunTuningJobs"
        Effect = "Allow"
        Action = [
          "sagemaker:CreateHyperParameterTuningJob",
          "sagemaker:DescribeHyperParameterTuningJob",
          "sagemaker:StopHyperParameterTuningJob",
        ]
        Resource = "${local.sagemaker_arn}:hyper-parameter-tuning-job/${var.name}-*"
      },
      {
        Sid       = "HandTrainingRoleToSageMaker"
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = "${local.iam_arn}:role/${var.name}-training"
        Condition = { StringEquals = { "iam:PassedToService" = "sagemaker.amazonaws.com" } }
      },
      {
        Sid      = "StopItselfWhenIdle"
        Effect   = "Allow"
        Action   = "sagemaker:StopNotebookInstance"
        Resource = "${local.sagemaker_arn}:notebook-instance/${var.name}"
      },
      {
        # The group belongs to the whole account; whoever comes first makes it.
        Sid      = "CreateLogGroup"
        Effect   = "Allow"
        Action   = ["logs:CreateLogGroup", "logs:DescribeLogStreams"]
        Resource = "${local.logs_arn}:log-group:/aws/sagemaker/NotebookInstances:*"
      },
      {
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${local.logs_arn}:log-group:/aws/sagemaker/NotebookInstances:log-stream:${var.name}/*"
      },
    ])
  })
}
